"""How well policies learn on line, over a collection of logs of different kinds, beside Vowpal Wabbit."""
