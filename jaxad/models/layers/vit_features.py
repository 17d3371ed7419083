"""A vision transformer whose patch tokens are taken behind several of its blocks.

The layers and parameters of :mod:`jaxad.models.layers.vit`, for images of any size that divides
into patches: the table of positions, stored for the grid that it was trained on, is interpolated
(Dosovitskiy et al. 2021, section 3.2). Further parameters, those of DINOv2 (M. Oquab et al., TMLR
2024; T. Darcet et al., "Vision Transformers Need Registers", ICLR 2024)::

    register_tokens     (1, r, d)   between the class token and the patches, without positions
    block_i/scale1      (d,)        factor of what the attention adds
    block_i/scale2      (d,)        factor of what the MLP adds
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from jaxad.models.layers.vit import PatchEmbedding, Transformer
from jaxad.ops.positions import bicubic_matrix

Colour = tuple[float, float, float]


class ViTFeatures(Transformer):
    """Images to the grids of tokens behind some blocks.

    Attributes:
      patch: side of a patch in pixels.
      grid: rows and columns that the table of positions was trained for.
      taps: numbers of the blocks whose tokens are taken; blocks after the last are not computed.
      registers: number of register tokens.
      mean: of the images that the network was trained on, in [0, 1], per colour.
      deviation: likewise; images are brought to mean 0 and deviation 1.
      antialias: whether a table that shrinks is smoothed, as DINOv2's of networks with registers.
      offset: added to the sides of the new grid before their ratio to the old ones is taken, as in
        DINOv2's networks without registers (0.1); it shifts what is interpolated a little.
    """

    patch: int = 16
    grid: tuple[int, int] = (14, 14)
    taps: tuple[int, ...] = ()
    registers: int = 0
    mean: Colour = (0.5, 0.5, 0.5)
    deviation: Colour = (0.5, 0.5, 0.5)
    antialias: bool = False
    offset: float = 0.0

    def setup(self):
        """Declares the embedding and the blocks."""
        super().setup()
        rows, columns = self.grid
        normal = nn.initializers.normal(0.02)
        self.patch_embedding = PatchEmbedding(self.features, self.patch, self.dtype)
        self.class_vector = self.param("class_token", normal, (1, 1, self.features))
        self.position_table = self.param(
            "positions", normal, (1, 1 + rows * columns, self.features)
        )
        if self.registers:
            shape = (1, self.registers, self.features)
            self.register_vectors = self.param("register_tokens", normal, shape)

    def positions_of(self, grid: tuple[int, int]) -> Float[Array, "1 n d"]:
        """The table of the patches, for a grid."""
        table = self.position_table[:, 1:]
        if grid == self.grid:
            return table
        rows, columns = (
            jnp.asarray(
                bicubic_matrix(old, new, offset=self.offset, antialias=self.antialias), jnp.float32
            )
            for old, new in zip(self.grid, grid, strict=True)
        )
        table = table.reshape(*self.grid, self.features)
        high = lax.Precision.HIGHEST
        table = jnp.einsum("ri,ijd->rjd", rows, table, precision=high)
        return jnp.einsum("cj,rjd->rcd", columns, table, precision=high).reshape(
            1, grid[0] * grid[1], self.features
        )

    # A transformer gives one row of tokens, this one a map for every tap.
    def __call__(  # type: ignore[override]
        self, images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b _ _ d"], ...]:
        """Tokens of the patches of images in [0, 1], each under the normalisation at the end.

        Raises:
          ValueError: for images that do not divide into patches.
        """
        b, h, w, _ = images.shape
        grid = (h // self.patch, w // self.patch)
        if h % self.patch or w % self.patch:
            raise ValueError(f"images of {h} x {w} do not divide into patches of {self.patch}")
        mean, deviation = (
            jnp.asarray(colour, images.dtype)[None, None, None]
            for colour in (self.mean, self.deviation)
        )
        tokens = self.patch_embedding((images - mean) / deviation) + self.positions_of(grid)
        first = [self.class_vector + self.position_table[:, :1]]
        first += [self.register_vectors] if self.registers else []
        front = jnp.concatenate(first, axis=1)
        front = jnp.broadcast_to(front, (b, *front.shape[1:]))
        tokens = jnp.concatenate([front, tokens], axis=1)
        maps = []
        for number, block in enumerate(self.block[: max(self.taps) + 1]):
            tokens = block(tokens)
            if number in self.taps:
                patches = self.norm(tokens)[:, front.shape[1] :]
                maps.append(patches.reshape(b, *grid, self.features))
        return tuple(maps)
