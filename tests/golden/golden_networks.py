"""The architectures in plain PyTorch, written from the papers' descriptions with torch.nn alone.

They share no code with jaxad: tests/golden/make_golden.py runs them for the values that
tests/models compares with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- Bergmann et al. 2019 (VISAPP), table 1 --------------------------------------------------

# Output channels, kernel, stride and padding of the encoder for 128-pixel images, top to bottom.
CAE_TABLE = (
    (32, 4, 2, 1),
    (32, 4, 2, 1),
    (32, 3, 1, 1),
    (64, 4, 2, 1),
    (64, 3, 1, 1),
    (128, 4, 2, 1),
    (64, 3, 1, 1),
    (32, 3, 1, 1),
)


class ConvolutionalAutoencoder(nn.Module):
    """Table 1 and its reverse, for ``halvings`` of 4 (128 pixels), 5 (256) or 3 (64)."""

    def __init__(
        self, channels: int, code_side: tuple[int, int], halvings: int, latent: int, width: float
    ):
        super().__init__()
        table = {3: CAE_TABLE[1:], 4: CAE_TABLE, 5: CAE_TABLE[:1] + CAE_TABLE}[halvings]
        table = [(round(width * out), k, s, p) for out, k, s, p in table]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        mirrored, before = [], channels
        for out, k, s, p in table:
            self.encoder.append(nn.Conv2d(before, out, k, s, p))
            mirrored.append((out, before, k, s, p))
            before = out
        self.code = nn.Conv2d(before, latent, code_side)
        self.expand = nn.ConvTranspose2d(latent, before, code_side)
        for before, out, k, s, p in reversed(mirrored):
            layer = nn.ConvTranspose2d if s == 2 else nn.Conv2d
            self.decoder.append(layer(before, out, k, s, p))
        self.to_image = self.decoder.pop(-1)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        for layer in self.encoder:
            x = F.leaky_relu(layer(x), 0.2)
        x = F.leaky_relu(self.expand(self.code(x)), 0.2)
        for layer in self.decoder:
            x = F.leaky_relu(layer(x), 0.2)
        return torch.sigmoid(self.to_image(x))


# --- Gangloff et al. 2022 (ICPR) --------------------------------------------------------------


class ResidualLayer(nn.Module):
    """ReLU, 3 x 3, ReLU, 1 x 1, added to the input."""

    def __init__(self, features: int):
        super().__init__()
        self.conv3 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv1 = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.conv1(F.relu(self.conv3(F.relu(x))))


class VQVAE(nn.Module):
    """Section III.A: strided convolutions, residual layers, codebook, and the mirror image."""

    def __init__(self, channels: int, halvings: int, features: int, codes: int, residual: int):
        super().__init__()
        f = features
        stack = lambda layer, n: nn.ModuleList(layer() for _ in range(n))
        self.down = nn.ModuleList(
            nn.Conv2d(channels if i == 0 else f, f, 4, 2, 1) for i in range(halvings)
        )
        self.down_norm = stack(lambda: nn.BatchNorm2d(f), halvings)
        self.encoder_residual = stack(lambda: ResidualLayer(f), residual)
        self.decoder_residual = stack(lambda: ResidualLayer(f), residual)
        self.up = stack(lambda: nn.ConvTranspose2d(f, f, 4, 2, 1), halvings - 1)
        self.up_norm = stack(lambda: nn.BatchNorm2d(f), halvings - 1)
        self.to_image = nn.ConvTranspose2d(f, channels, 4, 2, 1)
        self.codebook = nn.Parameter(torch.zeros(codes, features))

    def encode(self, x: Tensor) -> Tensor:
        """Latents before quantisation."""
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            x = norm(F.relu(conv(x)))
        for layer in self.encoder_residual:
            x = layer(x)
        return x

    def choose(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codes as ``(b, d, i, j)``, and which."""
        vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        distances = torch.cdist(vectors, self.codebook).detach()
        nearest = torch.topk(distances, 2, largest=False).values
        # No tie that float32 would break in another way.
        assert float((nearest[:, 1] - nearest[:, 0]).min()) > 1e-3, "change the seed"
        indices = distances.argmin(dim=1).reshape(z.shape[0], *z.shape[2:])
        return self.codebook[indices].permute(0, 3, 1, 2), indices

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits, latents, their codes, and which."""
        z = self.encode(x)
        codes, indices = self.choose(z)
        x = z + (codes - z).detach()
        for layer in self.decoder_residual:
            x = layer(x)
        x = F.relu(x)
        for conv, norm in zip(self.up, self.up_norm, strict=True):
            x = norm(F.relu(conv(x)))
        return self.to_image(x), z, codes, indices
