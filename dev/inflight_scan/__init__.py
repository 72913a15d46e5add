"""Other people's scanners over our code, our manifests and our pins, and the bill of materials of each image.

Everything that a scanner finds and that is meant is explained where it is, or in `kube_score`.
"""
