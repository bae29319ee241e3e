"""cifarray: train and tune image classifiers with Ray, on a laptop or on Kubernetes."""

__version__ = "0.1.0"
