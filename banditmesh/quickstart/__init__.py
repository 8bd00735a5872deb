"""The mesh that ``banditmesh up`` starts when there is no ``mesh.yaml``: small files to play with."""
