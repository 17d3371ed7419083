"""Groups of MVTec AD's categories over which means are taken."""

_TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
_OBJECTS = ("bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush",
            "transistor", "zipper")  # fmt: skip

MVTEC_AD = (*_TEXTURES, *_OBJECTS)

GROUPS = {
    "mean of textures": _TEXTURES,
    "mean of objects": _OBJECTS,
    "mean of textures with hazelnut": (*_TEXTURES, "hazelnut"),
    "mean of objects without hazelnut": tuple(k for k in _OBJECTS if k != "hazelnut"),
}
"""The first two are the data set's own; the comparison of VAE, VAE-GRF and ViT-VAE calls the other
two texture and non-texture."""
