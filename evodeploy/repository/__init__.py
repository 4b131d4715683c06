"""A model repository for Triton Inference Server, and manifests that run one on Kubernetes."""
