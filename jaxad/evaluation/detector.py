"""A trained model as a function from images to maps and scores."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from jaxad import models
from jaxad.data.pipeline import BatchLoader, Images, evaluation_batches
from jaxad.data.region_mask import RegionMask, RegionMasks, read_region_masks
from jaxad.data.tiled import Photographs
from jaxad.data.tiles import Grid, tiling_of
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.joining import JOINED, Coarse, join
from jaxad.evaluation.open_keys import override_detection
from jaxad.evaluation.postprocess import finish, make_detect
from jaxad.evaluation.primary import check_primary
from jaxad.evaluation.protocols.rules import get_protocol
from jaxad.evaluation.stitching import reduced_size
from jaxad.evaluation.thresholds import parse_by_hand
from jaxad.evaluation.tiled_detection import judge, map_factor
from jaxad.models.base import Model, Unseen, Variables, for_detection, parameter_key
from jaxad.models.positions import at_position, per_position
from jaxad.ops.arrays import AnyArray, pad_axis
from jaxad.run import environment, interruption
from jaxad.run.coarse import CoarseRun, read_coarse_run
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.progress import Progress
from jaxad.run.settings import Settings
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.parallel import Devices
from jaxad.training.tile_rows import grid_of


class Detector:
    """Runs a trained model over any number of images, in batches of few compiled shapes.

    Attributes:
      config: of the run.
      step: of the checkpoint.
      batch_size: images in one call of the model: ``evaluate.batch_size``, raised to the next
        multiple of the number of devices.
      maps: names of the model's maps.
      primary_map: name of the map that is shown and thresholded.
      primary_score: name of the score that decides about an image.
      regions: what is judged of images (``evaluate.region_mask``); None: all that is seen.
      coarse: the run of a model of whole photographs (``evaluate.coarse``), which has no say yet
        (:meth:`joined_to`); None: there is none.
      grid: the places of tiles, where each has a model of its own; else None.
    """

    def __init__(
        self,
        config: Settings,
        variables: Variables,
        model: Model,
        *,
        step: int,
        regions: RegionMasks | None = None,
        coarse: CoarseRun | None = None,
        grid: Grid | None = None,
    ):
        get_protocol(config.evaluate.protocol)
        parse_by_hand(config.evaluate.image_threshold)
        self.config, self.step, self.regions = config, step, regions
        self.coarse, self.grid = coarse, grid
        self._joined_to: Coarse | None = None
        self.model, self.variables = model, variables
        self._devices = Devices(config.train.devices, force_pmap=config.train.force_pmap)
        n = len(self._devices)
        # Rows that only pad are discarded, so that any batch size does on any number of devices.
        self.batch_size = -(-config.evaluate.batch_size // n) * n
        alone, kept = for_detection(model, variables)
        # Compiled on its own account too: what the check traces need not be traced again for one
        # image, which takes longer than to detect in it.
        traced_once = alone._replace(detect=jax.jit(alone.detect))
        self.maps = check_primary(config, traced_once, kept)
        self.primary_map = config.evaluate.primary_map
        self.primary_score = config.evaluate.primary_score
        # By the shapes of the variables; those of folds share it.
        self._programs: dict[Any, Callable[[Any, Any], Any]] = {}
        self._detect = self._program(traced_once, kept)
        self._placed = self._devices.replicate(kept)

    @classmethod
    def load(
        cls,
        workdir: str | os.PathLike,
        *,
        checkpoint: str | int = "last",
        overrides: Mapping[str, Any] | None = None,
    ) -> Detector:
        """Reads the model of a run folder.

        Args:
          workdir: the run folder.
          checkpoint: ``"last"``, ``"best"`` or a step number.
          overrides: keys of :func:`~jaxad.evaluation.open_keys.override_detection` that take the
            place of the run's, for this detector.

        Raises:
          UserError: it is no run folder, has no such checkpoint, or a key or value is wrong.
        """
        environment.enable_compilation_cache()
        run = RunFolder(workdir)
        config = override_detection(run.read_config(), overrides or {})
        # A run trained on more devices than there are here is read all the same.
        devices = min(config.train.devices, len(jax.local_devices()))
        config = dataclasses.replace(
            config, train=dataclasses.replace(config.train, devices=devices)
        )
        model = models.build_from(config)
        grid = grid_of(config.data, run.read_json(run.data))
        if grid is not None:
            model = per_position(model, grid.places)
        variables, step = _read_variables(run, model, str(checkpoint))
        regions = read_region_masks(run, config)
        coarse = read_coarse_run(run, config)
        return cls(config, variables, model, step=step, regions=regions, coarse=coarse, grid=grid)

    def of_fold(self, run: RunFolder, number: int) -> Detector:
        """The same detector with the variables of a model of cross-fitting.

        Compiled once for all folds whose variables are of the same shapes.

        Args:
          run: the run folder.
          number: of the fold that the model has not seen.

        Raises:
          UserError: training has not come so far.
        """
        variables, _ = _read_variables(run.fold(number), self.model, "last")
        other = copy.copy(self)
        alone, kept = for_detection(self.model, variables)
        other.variables, other._placed = variables, self._devices.replicate(kept)
        # Of fewer images there are fewer axes, or another covariance.
        other._detect = self._program(alone, kept)
        return other

    def _program(self, model: Model, variables: Variables) -> Callable[[Any, Any], Any]:
        """Detection and what comes after it, compiled once for variables of one kind."""
        leaves, structure = jax.tree.flatten(dict(variables))
        kind = structure, tuple(map(np.shape, leaves))
        if kind not in self._programs:
            detect = make_detect(model, smoothing=self.config.evaluate.smoothing)
            self._programs[kind] = self._devices.compile_detection(_of_pair(detect))
        return self._programs[kind]

    def in_the_middle(self) -> Detector:
        """The detector of tiles in the middle of photographs; the same one where all are alike."""
        if self.grid is None:
            return self
        one = at_position(self.variables, self.grid.middle)
        return Detector(self.config, one, models.build_from(self.config), step=self.step)

    def joined_to(self, coarse: Coarse) -> Detector:
        """The same detector with a map and a score joined of both models, which are primary."""
        other = copy.copy(self)
        other._joined_to = coarse
        other.maps = (*self.maps, JOINED)
        other.primary_map = other.primary_score = JOINED
        return other

    def left_out(
        self,
        images: Images,
        folds: Int[np.ndarray, " n"],
        inside: Bool[np.ndarray, "n h w"] | None = None,
    ) -> Iterator[Unseen]:
        """What models that have not seen an image's fold say of it, post-processed.

        Only of a model that has ``left_out`` (:class:`jaxad.models.base.Model`).

        Args:
          images: all that the model was fitted to, in order.
          folds: of each.
          inside: what is judged of each; None: all.

        Raises:
          UserError: the model gives values that are not finite.
        """
        assert self.model.left_out is not None
        smoothing = self.config.evaluate.smoothing
        finished = jax.jit(partial(finish, smoothing=smoothing))
        for places, *found in self.model.left_out(self.variables, BatchLoader(images), folds):
            interruption.check()
            # Of few sizes, for each of which it is compiled.
            size = self.size_for(len(places)) if len(places) < self.batch_size else len(places)
            filled = [_filled(named, size) for named in found]
            # Rows that only pad are those of the first image.
            rows = np.concatenate([places, np.zeros(size - len(places), np.int64)])
            judged = None if inside is None else inside[rows]
            maps, scores = (_first(named, len(places)) for named in finished(*filled, judged))
            self._check_finite({**maps, **scores})
            yield Unseen(places, maps, scores)

    def _check_finite(self, found: Mapping[str, np.ndarray]) -> None:
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise UserError(
                    f"checkpoint {self.step} gives values of {name} that are not finite; "
                    "take another one with --checkpoint, or train again"
                )

    def size_for(self, count: int) -> int:
        """The compiled size that so many images cost least in: the next power of two.

        It is at most ``batch_size`` and a multiple of the number of devices. Few sizes, since
        each is compiled once.

        Args:
          count: of images, at least 1.
        """
        n = len(self._devices)
        size = 1 << (count - 1).bit_length()
        return min(-(-size // n) * n, self.batch_size)

    @property
    def tiled(self) -> bool:
        """Whether the model sees tiles of photographs (``data.tiles``)."""
        return tiling_of(self.config.data.tiles, self.config.data.image_size) is not None

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the maps of a photograph of which tiles are seen.

        Args:
          size: of what is seen of the photograph.
        """
        limit = self.config.evaluate.memory_limit_mb
        own = len(self.maps) - (self._joined_to is not None)
        return reduced_size(size, map_factor(size, maps=own, limit_mb=limit))

    def region_of(self, path: str | None) -> RegionMask | None:
        """What is judged of an image; None: all.

        Args:
          path: its file; None for an image that is none.

        Raises:
          UserError: its picture cannot be read, or is black where the model sees.
        """
        return None if self.regions is None else self.regions.of(path)

    def inside_of(self, paths: Sequence[str | None]) -> Bool[np.ndarray, "n h w"] | None:
        """What is judged of images, at the model's size; None: all of all, or photographs.

        Args:
          paths: of their files; None for an image that is none.
        """
        if self.regions is None or self.tiled:
            return None
        size = self.config.data.image_size
        if self.regions.every is not None:
            return np.broadcast_to(self.regions.every.at(size), (len(paths), *size))
        found = map(self.regions.of, paths)
        return np.stack([np.ones(size, bool) if one is None else one.at(size) for one in found])

    def batches(
        self,
        images: Images | Photographs,
        batch_size: int | None = None,
        inside: Bool[np.ndarray, "n h w"] | None = None,
        places: Int[np.ndarray, " n"] | None = None,
    ) -> Iterator[DetectorOutput]:
        """Runs the model batch by batch; each yield covers the next images, in order.

        Of photographs that are seen by tiles each yield covers one.

        Args:
          images: ``(n, h, w, c)`` uint8 of the model's size, n at least 1, or photographs.
          batch_size: of one call of the model, from :meth:`size_for`; None: ``batch_size``.
          inside: what is judged of each image, at its size; None: all. Of photographs the detector
            knows it by itself.
          places: of each tile, where each place has a model of its own.

        Raises:
          UserError: the model gives values that are not finite.
        """
        size = batch_size or self.batch_size
        if isinstance(images, Photographs):
            limit = self.config.evaluate.memory_limit_mb
            for photograph in images:
                output = judge(
                    self.batches,
                    images,
                    photograph,
                    batch_size=size,
                    limit_mb=limit,
                    region=self.region_of(photograph.path),
                )
                if self._joined_to is not None:
                    output = join(output, photograph, self._joined_to)
                yield output
            return
        for batch in evaluation_batches(images, batch_size=size, pipeline="memory"):
            interruption.check()
            judged = None if inside is None else inside[batch.index]
            own = () if self.grid is None or places is None else (places[batch.index],)
            output = DetectorOutput(*self._detect(self._placed, (batch.image, judged, *own)))
            # The other rows only pad the last batch.
            output = output.rows(slice(int(np.sum(batch.valid))))
            self._check_finite({**output.maps, **output.scores})
            yield output

    def __call__(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        batch_size: int | None = None,
        inside: Bool[np.ndarray, "n h w"] | None = None,
    ) -> DetectorOutput:
        """Runs the model over all images; arguments and errors as of :meth:`batches`."""
        parts, done = [], 0
        with Progress("image", len(images)) as progress:
            for output in self.batches(images, batch_size, inside):
                parts.append(output)
                done += len(output.reconstruction)
                progress.update(done)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _read_variables(run: RunFolder, model: Model, checkpoint: str) -> tuple[Variables, int]:
    # The key inside: outside it would be computed, by a program that is compiled at every start.
    like = jax.eval_shape(lambda: model.init(parameter_key(0)))
    checkpoints = Checkpoints(run.checkpoints, read_only=True)
    try:
        return checkpoints.restore_variables(like, checkpoint)
    finally:
        checkpoints.close()


def _of_pair(detect: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of the images and what is said of each, which devices share."""
    return lambda variables, pair: detect(variables, *pair)


def _filled(named: Mapping[str, AnyArray], size: int) -> dict[str, Array]:
    """With rows of zeros behind."""
    return {name: pad_axis(x, 0, (0, size - len(x))) for name, x in named.items()}


def _first(named: Mapping[str, Array], count: int) -> dict[str, np.ndarray]:
    """The rows before those."""
    return {name: np.asarray(x)[:count] for name, x in named.items()}
