"""One device or many, in one process or many: the only file that names ``pmap``.

State and variables are never stacked: every device holds the whole of them (``in_axes=None``,
``out_axes=None``), batches are split along their first axis, and each step reduces explicitly over
:data:`AXIS`. With several processes each holds the state on its own devices and its rows of every
batch, and :data:`AXIS` runs over the devices of all of them. A forgotten reduction is not an error
anywhere in JAX, so the conformance suite compares four devices with one by value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxad.run.compilation import detection_options
from jaxad.run.errors import UserError

AXIS = "data"
"""Name of the mapped axis."""


class Devices:
    """The devices that a run works on, and how functions are compiled for them.

    Attributes:
      devices: the local devices used.
      axis_name: :data:`AXIS` when functions are mapped over devices, None on plain ``jit``.
    """

    def __init__(
        self, count: int = 0, *, force_pmap: bool = False, several_processes: bool = False
    ):
        """Takes ``count`` local devices, or all of them when it is 0.

        Args:
          count: of the devices of each process.
          force_pmap: map over one device too.
          several_processes: work with the devices of all processes as one, where there are
            several.

        Raises:
          UserError: more devices than there are, or several processes where one has to do it.
        """
        local = jax.local_devices()
        if jax.process_count() > 1 and not several_processes:
            raise UserError(
                f"only training runs in several processes (here {jax.process_count()}); evaluate "
                "and predict in one"
            )
        # In every process the same is wrong, so that none waits for one that has given up.
        most = min(map(len, _of_processes()))
        if count < 0 or count > most:
            raise UserError(
                f"train.devices is {count}, but this machine has {most} "
                f"{local[0].platform} device(s); give a number from 1 to {most}, or 0 for all"
            )
        self.devices = local[: count or len(local)]
        self._all = _in_every_process(count)
        self.mapped = force_pmap or len(self._all) > 1
        self.axis_name = AXIS if self.mapped else None

    def __len__(self) -> int:
        """How many devices share a batch, over all processes."""
        return len(self._all)

    def local_rows(self, batch_size: int) -> slice:
        """The rows of a global batch that the devices of this process take."""
        each = batch_size // len(self)
        first = self._all.index(self.devices[0])
        return slice(each * first, each * (first + len(self.devices)))

    def check_batch_size(self, key: str, batch_size: int) -> None:
        """Refuses a batch that does not divide among the devices.

        Raises:
          UserError: names the config key and a size that would do.
        """
        n = len(self)
        if batch_size < 1 or batch_size % n:
            fitting = max(n, -(-batch_size // n) * n)
            raise UserError(
                f"{key} is {batch_size}, which does not divide among {n} devices; take {fitting}"
            )

    def replicate(self, tree: Any) -> Any:
        """Puts a whole copy on every device (once, so that the first step compiles once)."""
        if not self.mapped:
            return jax.device_put(tree, self.devices[0])
        mesh = Mesh(np.array(self.devices), (AXIS,))
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))

    def split(self, tree: Any) -> Any:
        """Splits the leading axis of every array among the local devices."""
        if not self.mapped:
            return tree
        n = len(self.devices)
        return jax.tree.map(lambda x: x.reshape(n, x.shape[0] // n, *x.shape[1:]), tree)

    def compile_step(self, step: Callable, *, donate_state: bool) -> Callable:
        """Compiles ``(state, batch) -> anything that is equal on every device``."""
        donate = (0,) if donate_state else ()
        if not self.mapped:
            return jax.jit(step, donate_argnums=donate)
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=None,
            donate_argnums=donate,
            devices=self._all,
        )

    def compile_detection(self, function: Callable) -> Callable[[Any, Any], Any]:
        """Compiles detection: ``(variables, tree of (b, ...)) -> tree of (b, ...)``.

        The results are numpy arrays, unsplit.
        """
        if not self.mapped:
            compiled = jax.jit(function, compiler_options=detection_options())
            return lambda variables, images: jax.device_get(compiled(variables, images))
        compiled = jax.pmap(
            function, axis_name=AXIS, in_axes=(None, 0), out_axes=0, devices=self.devices
        )

        def call(variables: Any, images: Any) -> Any:
            outputs = jax.device_get(compiled(variables, self.split(images)))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)

        return call


def _in_every_process(count: int) -> list[jax.Device]:
    """The first ``count`` devices of each process (0: all), process by process."""
    found = _of_processes()
    taken = [devices[: count or len(devices)] for devices in found]
    if len({len(devices) for devices in taken}) > 1:
        numbers = ", ".join(str(len(devices)) for devices in found)
        raise UserError(
            f"the processes have {numbers} devices; set train.devices to what each of them has"
        )
    return [device for devices in taken for device in devices]


def _of_processes() -> list[list[jax.Device]]:
    return [jax.local_devices(process_index=i) for i in range(jax.process_count())]
