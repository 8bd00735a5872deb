"""The ``banditmesh`` command. One module a subcommand; heavy imports happen inside, so that ``--help`` is quick.

Importing this imports nothing: the way in is ``banditmesh.command``, which first sees to it that Ctrl-C is quiet.
"""
