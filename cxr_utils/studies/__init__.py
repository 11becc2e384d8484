"""Many runs that answer one question: ``python -m cxr_utils study params/studies/seeds.yaml``."""
