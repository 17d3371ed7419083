"""What `train_step.py` times: a VQ-VAE's training step and its convolutions one by one.

Each exists for the rows ``lax``, ``jaxad``, ``torch`` and ``torch-nhwc``; libraries are imported
by the functions of the rows that need them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

RESIDUAL_LAYERS, CODES = 3, 512
MATMUL_FLOP = 2.0 * 1024 * 4096 * 1024


# The network in JAX.


def jax_step(row: str, batch: int, size: int, channels: int) -> tuple[Callable[[], float], dict]:
    """A function that does one step and returns the loss, and facts about it."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn

    from jaxad.models.layers import basic as layers

    library = {"lax": nn, "jaxad": layers}[row]
    strided = {"kernel_size": (4, 4), "strides": (2, 2)}

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(3):
                x = self.normalise(library.Conv(channels, **strided)(x))
            z = self.residual(x)
            codebook = self.param("codebook", nn.initializers.normal(0.05), (CODES, channels))
            flat = z.reshape(-1, channels)
            distance = jnp.sum(codebook**2, 1)[None] - 2 * flat @ codebook.T
            code = codebook[jnp.argmin(distance, 1)].reshape(z.shape)
            terms = jnp.mean((jax.lax.stop_gradient(z) - code) ** 2)
            terms += 0.25 * jnp.mean((z - jax.lax.stop_gradient(code)) ** 2)
            x = self.residual(z + jax.lax.stop_gradient(code - z))
            for _ in range(2):
                x = self.normalise(library.ConvTranspose(channels, **strided)(x))
            return library.ConvTranspose(3, **strided)(x), terms

        def normalise(self, x):
            return nn.BatchNorm(use_running_average=False, momentum=0.9)(nn.relu(x))

        def residual(self, x):
            for _ in range(RESIDUAL_LAYERS):
                y = library.Conv(channels, (3, 3))(nn.relu(x))
                x = x + library.Conv(channels, (1, 1))(nn.relu(y))
            return x

    def loss(params, statistics, images):
        variables = {"params": params, "batch_stats": statistics}
        (logits, terms), updates = network.apply(variables, images, mutable=["batch_stats"])
        cross_entropy = optax.sigmoid_binary_cross_entropy(logits, images)
        return jnp.sum(cross_entropy) / images.shape[0] + terms, updates["batch_stats"]

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, images):
        params, statistics, optimizer_state = state
        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, statistics, images
        )
        changes, optimizer_state = optimizer.update(gradients, optimizer_state)
        return (optax.apply_updates(params, changes), statistics, optimizer_state), value

    network, optimizer = Network(), optax.adam(1e-4)
    images = jax.random.uniform(jax.random.key(1), (batch, size, size, 3))
    variables = jax.jit(network.init)(jax.random.key(0), images)
    params = variables["params"]
    state = params, variables["batch_stats"], optimizer.init(params)
    start = time.perf_counter()
    compiled = update.lower(state, images).compile()
    facts = {
        "compile_seconds": time.perf_counter() - start,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "version": f"jax {jax.__version__}",
    }

    def step() -> float:
        nonlocal state
        state, value = compiled(state, images)
        return float(value)

    return step, facts


# The network in PyTorch.


def torch_step(row: str, batch: int, size: int, channels: int) -> tuple[Callable[[], float], dict]:
    """The same in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Conv2d(channels, channels, 3, padding=1)
            self.narrow = nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            return x + self.narrow(functional.relu(self.wide(functional.relu(x))))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            encoder, decoder, width = [], [], 3
            for _ in range(3):
                encoder += [nn.Conv2d(width, channels, 4, 2, 1), nn.ReLU()]
                encoder += [nn.BatchNorm2d(channels)]
                width = channels
            self.encoder = nn.Sequential(*encoder, *(Residual() for _ in range(RESIDUAL_LAYERS)))
            self.codebook = nn.Parameter(0.05 * torch.randn(CODES, channels))
            for _ in range(2):
                decoder += [nn.ConvTranspose2d(channels, channels, 4, 2, 1), nn.ReLU()]
                decoder += [nn.BatchNorm2d(channels)]
            decoder += [nn.ConvTranspose2d(channels, 3, 4, 2, 1)]
            self.decoder = nn.Sequential(*(Residual() for _ in range(RESIDUAL_LAYERS)), *decoder)

        def forward(self, x):
            z = self.encoder(x)
            flat = z.permute(0, 2, 3, 1).reshape(-1, channels)
            distance = (self.codebook**2).sum(1)[None] - 2 * flat @ self.codebook.T
            code = self.codebook[distance.argmin(1)]
            code = code.reshape(batch, *z.shape[2:], channels).permute(0, 3, 1, 2)
            terms = ((z.detach() - code) ** 2).mean() + 0.25 * ((z - code.detach()) ** 2).mean()
            return self.decoder(z + (code - z).detach()), terms

    order = torch.channels_last if row == "torch-nhwc" else torch.contiguous_format
    torch.manual_seed(0)
    network = Network().to(memory_format=order)
    images = torch.rand(batch, 3, size, size).to(memory_format=order)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        logits, terms = network(images)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        value = cross_entropy / batch + terms
        value.backward()
        optimizer.step()
        return value.item()

    facts = {
        "compile_seconds": 0.0,
        "parameters": sum(p.numel() for p in network.parameters()),
        "version": f"torch {torch.__version__}, {torch.get_num_threads()} threads",
    }
    return step, facts


# Its convolutions one by one: (name, transposed, input side, kernel, stride, ci, co, how many).


def layer_table(size: int, channels: int) -> list[tuple]:
    latent = size // 8
    return [
        ("conv 4x4/2 first", False, size, 4, 2, 3, channels, 1),
        ("conv 4x4/2 second", False, size // 2, 4, 2, channels, channels, 1),
        ("conv 4x4/2 third", False, size // 4, 4, 2, channels, channels, 1),
        ("conv 3x3", False, latent, 3, 1, channels, channels, 2 * RESIDUAL_LAYERS),
        ("conv 1x1", False, latent, 1, 1, channels, channels, 2 * RESIDUAL_LAYERS),
        ("transposed 4x4/2 first", True, latent, 4, 2, channels, channels, 1),
        ("transposed 4x4/2 second", True, 2 * latent, 4, 2, channels, channels, 1),
        ("transposed 4x4/2 third", True, 4 * latent, 4, 2, channels, 3, 1),
    ]


def layer_flop(layer: tuple, batch: int) -> float:
    _, transposed, side, kernel, stride, ci, co, _ = layer
    positions = batch * (side if transposed else side // stride) ** 2
    return 2.0 * positions * kernel**2 * ci * co


def jax_layer(row: str, layer: tuple, batch: int) -> list[Callable[[], object]]:
    """Value, input gradient and kernel gradient of one layer."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from jaxad.ops import convolution

    _, transposed, side, kernel, stride, ci, co, _ = layer

    def plain(x, weights):
        function = lax.conv_transpose if transposed else lax.conv_general_dilated
        return function(
            x, weights, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, weights):
        function = convolution.conv_transpose if transposed else convolution.conv
        return function(x, weights, stride=stride)

    function = {"lax": plain, "jaxad": ours}[row]
    x = jax.random.normal(jax.random.key(0), (batch, side, side, ci))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, ci, co))
    out = jax.eval_shape(function, x, weights)
    cotangent = jnp.ones(out.shape) + jax.random.normal(jax.random.key(2), out.shape)

    def timed(function, *arguments):
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arguments))

    return [
        timed(function, x, weights),
        timed(lambda x, w, g: jax.vjp(function, x, w)[1](g)[0], x, weights, cotangent),
        timed(lambda x, w, g: jax.vjp(function, x, w)[1](g)[1], x, weights, cotangent),
    ]


def torch_layer(row: str, layer: tuple, batch: int) -> list[Callable[[], object]]:
    import torch

    _, transposed, side, kernel, stride, ci, co, _ = layer
    x = torch.randn(batch, ci, side, side)
    weights = torch.randn(*((ci, co) if transposed else (co, ci)), kernel, kernel)
    pad = (kernel - 1) // 2
    geometry = ([stride] * 2, [pad] * 2, [1, 1], transposed, [0, 0], 1)
    cotangent = torch.randn_like(torch.convolution(x, weights, None, *geometry))

    def gradient(mask):
        return torch.ops.aten.convolution_backward(cotangent, x, weights, [co], *geometry, mask)

    return [
        lambda: torch.convolution(x, weights, None, *geometry),
        lambda: gradient([True, False, False]),
        lambda: gradient([False, True, False]),
    ]


def matmul(row: str) -> Callable[[], object]:
    """One product of 1024 x 4096 and 4096 x 1024."""
    if row.startswith("torch"):
        import torch

        left, right = torch.randn(1024, 4096), torch.randn(4096, 1024)
        return lambda: left @ right
    import jax

    left = jax.random.normal(jax.random.key(0), (1024, 4096))
    right = jax.random.normal(jax.random.key(1), (4096, 1024))
    product = jax.jit(lambda left, right: left @ right)
    return lambda: jax.block_until_ready(product(left, right))
