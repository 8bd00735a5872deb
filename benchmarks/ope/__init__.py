"""Off-policy evaluation where the truth is known: do the intervals hold it?"""
