"""Generated pictures: drawing primitives, objects, textures and the defects on them."""
