"""The five services, one package each; they share ``banditmesh`` and never import each other."""
