"""RealEstate10K-style chunks of encoded photos: read, made, changed, indexed (specs/lvsm 4)."""
