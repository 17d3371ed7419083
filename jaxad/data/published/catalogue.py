"""The published data sets that are read by name: what each needs, from where, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxad.data.published.counts import Counts, Published
from jaxad.run.errors import UserError, did_you_mean

# category: side in pixels, train good, test good, anomalous by kind.
_MVTEC_AD: Mapping[str, tuple[int, int, int, Mapping[str, int]]] = {
    "bottle": (900, 209, 20, {"broken_large": 20, "broken_small": 22, "contamination": 21}),
    "cable": (1024, 224, 58, {
        "bent_wire": 13, "cable_swap": 12, "combined": 11, "cut_inner_insulation": 14,
        "cut_outer_insulation": 10, "missing_cable": 12, "missing_wire": 10,
        "poke_insulation": 10}),
    "capsule": (1000, 219, 23, {
        "crack": 23, "faulty_imprint": 22, "poke": 21, "scratch": 23, "squeeze": 20}),
    "carpet": (1024, 280, 28, {
        "color": 19, "cut": 17, "hole": 17, "metal_contamination": 17, "thread": 19}),
    "grid": (1024, 264, 21, {
        "bent": 12, "broken": 12, "glue": 11, "metal_contamination": 11, "thread": 11}),
    "hazelnut": (1024, 391, 40, {"crack": 18, "cut": 17, "hole": 18, "print": 17}),
    "leather": (1024, 245, 32, {"color": 19, "cut": 19, "fold": 17, "glue": 19, "poke": 18}),
    "metal_nut": (700, 220, 22, {"bent": 25, "color": 22, "flip": 23, "scratch": 23}),
    "pill": (800, 267, 26, {
        "color": 25, "combined": 17, "contamination": 21, "crack": 26, "faulty_imprint": 19,
        "pill_type": 9, "scratch": 24}),
    "screw": (1024, 320, 41, {
        "manipulated_front": 24, "scratch_head": 24, "scratch_neck": 25, "thread_side": 23,
        "thread_top": 23}),
    "tile": (840, 230, 33, {
        "crack": 17, "glue_strip": 18, "gray_stroke": 16, "oil": 18, "rough": 15}),
    "toothbrush": (1024, 60, 12, {"defective": 30}),
    "transistor": (1024, 213, 60, {
        "bent_lead": 10, "cut_lead": 10, "damaged_case": 10, "misplaced": 10}),
    "wood": (1024, 247, 19, {
        "color": 8, "combined": 11, "hole": 10, "liquid": 10, "scratch": 21}),
    "zipper": (1024, 240, 32, {
        "broken_teeth": 19, "combined": 16, "fabric_border": 17, "fabric_interior": 16,
        "rough": 17, "split_teeth": 18, "squeezed_teeth": 16}),
}  # fmt: skip

MIAD_SURFACE = ("electrical_insulator", "metal_welding", "photovoltaic_module", "wind_turbine")
MIAD_LOGICAL = ("catenary_dropper", "nut_and_bolt", "witness_mark")

# product: size, train ok, test ok, test ko.
_BTAD = {
    "01": ((1600, 1600), 400, 21, 49),
    "02": ((600, 600), 399, 30, 200),
    "03": ((600, 800), 1000, 400, 41),
}

DIGITS = tuple("0123456789")
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_MNIST_TRAIN = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
_MNIST_TEST = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)

# probability of a defect as a kind: monocrystalline, polycrystalline cells.
_ELPV = {"good": (588, 920), "p33": (117, 178), "p67": (56, 50), "p100": (313, 402)}

_MAGNETIC_TILE = {"good": 952, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}

_FRAMES = 200


def _one_class(classes: Sequence[str], train: Sequence[int], test: Sequence[int], side: int):
    """One class is normal; the test images of the others are anomalous, their class the kind."""
    return {
        normal: Counts(
            train={"good": train[place]},
            test={"good" if c == normal else c: n for c, n in zip(classes, test, strict=True)},
            size=(side, side),
        )
        for place, normal in enumerate(classes)
    }


CATALOGUE: Mapping[str, Published] = {
    "mvtec_ad": Published(
        title="MVTec AD",
        about="5,354 images of 10 objects and 5 textures, 73 kinds of defect, pixel masks",
        needs="folder with the categories (or one of them), each train/good, test/<kind>, "
        "ground_truth/<kind>",
        source="https://www.mvtec.com/company/research/datasets/mvtec-ad (form; 5 GB)",
        licence="CC BY-NC-SA 4.0",
        reference="Bergmann et al., CVPR 2019",
        categories={
            name: Counts(train={"good": train}, test={"good": good, **kinds},
                         size=(side, side), masks=True)
            for name, (side, train, good, kinds) in _MVTEC_AD.items()
        },
        counts_from="totals and sizes: table 1 of Yang and Guo 2024; images of each kind agree "
        "with these totals in sum, and with the data itself for bottle, screw and transistor",
        folders=True,
    ),
    "miad": Published(
        title="MIAD",
        about="rendered outdoor maintenance scenes, 7 scenarios of 10,000 training images; "
        f"surface anomalies: {', '.join(MIAD_SURFACE)}; logical: {', '.join(MIAD_LOGICAL)}",
        needs="folder with the categories (or one of them) in the MVTec layout",
        source="https://miad-2022.github.io (large: prepare it once with `jaxad data prepare`)",
        licence="see its page; none could be verified",
        reference="Bao et al., arXiv:2211.13968",
        categories={
            name: Counts(train={"good": 10_000}, masks=True)
            for name in sorted((*MIAD_SURFACE, *MIAD_LOGICAL))
        },
        counts_from="10,000 training images each: section III.B of arXiv:2408.13561; test images "
        "(35,000 in all, at least 1,200 each) are not compared per category: not verified",
        folders=True,
    ),
    "btad": Published(
        title="BTAD (beanTech)",
        about="2,540 images of 3 industrial products, pixel masks; the paper says 2,830, which "
        "counts the 290 masks too",
        needs="folder with 01, 02, 03 (or one of them), each train/ok, test/ok, test/ko, "
        "ground_truth/ko; png and bmp mixed",
        source="http://avires.dimi.uniud.it/papers/btad/btad.zip",
        licence="CC BY-SA 4.0 as its authors' repository states",
        reference="Mishra et al., ISIE 2021, arXiv:2104.10036",
        categories={
            name: Counts(train={"good": train}, test={"good": good, "ko": ko},
                         size=size, masks=True)
            for name, (size, train, good, ko) in _BTAD.items()
        },
        counts_from="sums (2,540 images, 290 of them anomalous) agree with what is published; "
        "the parts could not be verified on the data. The paper gives 1,000 training images for "
        "the product of 600 x 600 pixels and 399 for that of 800 x 600, the folders the reverse",
        folders=True,
    ),
    "mnist": Published(
        title="MNIST",
        about="70,000 gray digits of 28 x 28 pixels; one digit normal, the others anomalous",
        needs="folder or file: mnist.npz; the four IDX files (also .gz); {train,test}/<digit>/ "
        "as folders or zip; or a folder that TensorFlow Datasets prepared",
        source="http://yann.lecun.com/exdb/mnist; tfds.load('mnist')",
        licence="none stated by its authors",
        reference="LeCun et al., Proceedings of the IEEE 1998",
        categories=_one_class(DIGITS, _MNIST_TRAIN, _MNIST_TEST, 28),
        counts_from="the data itself",
    ),
    "cifar10": Published(
        title="CIFAR-10",
        about="60,000 colour images of 32 x 32 pixels; one class normal, the others anomalous",
        needs="folder or file: the batches of the python or binary version; .npz; "
        "{train,test}/<class>/ as folders or zip; or a folder that TensorFlow Datasets prepared",
        source="https://www.cs.toronto.edu/~kriz/cifar.html; tfds.load('cifar10')",
        licence="none stated by its authors",
        reference="Krizhevsky, technical report 2009",
        categories=_one_class(CIFAR10_CLASSES, (5000,) * 10, (1000,) * 10, 32),
        counts_from="the data set's page",
    ),
    "ucsd_ped1": Published(
        title="UCSD Ped1",
        about="clips of a walkway, gray, 158 x 238 pixels, 200 frames each; bikes, carts and "
        "skaters are anomalous. category masked: only the 10 test clips with pixel masks",
        needs="UCSD_Anomaly_Dataset.v1p2 or its UCSDped1: Train/Train001 ..., Test/Test001 ..., "
        "Test/Test003_gt ..., Test/UCSDped1.m",
        source="http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm",
        licence="none stated by its authors",
        reference="Mahadevan et al., CVPR 2010",
        categories={
            "": Counts(train={"good": 34 * _FRAMES}, size=(158, 238)),
            "masked": Counts(train={"good": 34 * _FRAMES}, size=(158, 238)),
        },
        counts_from="34 and 36 clips, 10 with pixel masks: the data set's README; 200 frames "
        "each and the size: not verified on the data",
    ),
    "elpv": Published(
        title="ELPV",
        about="2,624 solar cells in electroluminescence, gray, 300 x 300 pixels, each with a "
        "probability of a defect: 0, 1/3, 2/3, 1. category mono or poly: cells of one type",
        needs="nothing after `pip install elpv-dataset`; else its folder (labels.csv, images/)",
        source="https://pypi.org/project/elpv-dataset",
        licence="CC BY-NC-SA 4.0",
        reference="Deitsch et al., Solar Energy 2019",
        categories={
            "": Counts(pool={k: mono + poly for k, (mono, poly) in _ELPV.items()}, size=(300, 300)),
            "mono": Counts(pool={k: mono for k, (mono, _) in _ELPV.items()}, size=(300, 300)),
            "poly": Counts(pool={k: poly for k, (_, poly) in _ELPV.items()}, size=(300, 300)),
        },
        counts_from="the data itself (package 1.0.0.post1)",
    ),
    "kolektor_sdd": Published(
        title="KolektorSDD",
        about="399 images of 50 electrical commutators, 52 with a crack, pixel masks",
        needs="folder with kos01 ... kos50, each Part0.jpg, Part0_label.bmp ...",
        source="https://www.vicos.si/resources/kolektorsdd",
        licence="CC BY-NC-SA 4.0 as its page states (not verified)",
        reference="Tabernik et al., Journal of Intelligent Manufacturing 2019",
        categories={"": Counts(pool={"good": 347, "defect": 52}, masks=True)},
        counts_from="the data set's page, as repeated in public repositories",
    ),
    "magnetic_tile": Published(
        title="Magnetic tile defects",
        about="1,344 gray images of tile surfaces in many sizes, 5 kinds of defect, pixel masks",
        needs="folder with MT_Blowhole, MT_Break, MT_Crack, MT_Fray, MT_Free, MT_Uneven, each "
        "Imgs/*.jpg with *.png masks; or the same images in the MVTec layout",
        source="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        licence="none; its authors welcome its use and ask to be cited",
        reference="Huang et al., The Visual Computer 2020",
        categories={"": Counts(pool=_MAGNETIC_TILE, masks=True)},
        counts_from="the data itself, in the MVTec layout",
    ),
}  # fmt: skip
"""``data.name`` -> what is published."""


def published_categories(name: str) -> tuple[str, ...]:
    """Returns what ``data.category`` may be for a published data set; ``""`` is left out.

    Raises:
      UserError: there is none of this name.
    """
    if name not in CATALOGUE:
        raise UserError(f"no published data set {name!r}{did_you_mean(name, CATALOGUE)}")
    return tuple(category for category in CATALOGUE[name].categories if category)
