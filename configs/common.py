"""Every config key, its default and one line on what it does.

A model's config file starts from :func:`get_config`, fills ``config.model`` and changes what its
paper asks for. Any key can be overridden: ``--config.train.epochs=20``.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults that every model's config starts from."""
    config = ConfigDict()
    config.variants = ""  # which variants were applied (filled in; not to be set)
    config.seed = 0  # of parameters, data order, augmentation, the held-out split

    config.data = ConfigDict()
    config.data.name = "auto"  # auto | mvtec | folder | shards | synthetic | mvtec_ad ...
    config.data.root = ""  # folder of the images; empty: generated images
    config.data.category = ""  # sub-folder of root (MVTec layout), normal class, generated category
    config.data.anomalous = ""  # elpv: defect probabilities that are anomalous; "" = 1/3,2/3,1
    config.data.image_size = (128, 128)  # (height, width) in pixels that the model sees
    config.data.region = (0.0, 0.0, 1.0, 1.0)  # seen part: (top, left, bottom, right), shares
    config.data.channels = 3  # 3 (RGB) or 1 (gray)
    config.data.range_16bit = "full"  # 16-bit images: full | a bit depth ("12") | percentiles
    config.data.holdout = 0.1  # share of the good training images kept for calibration
    config.data.pipeline = "auto"  # auto | tf | memory; auto takes tf.data where it is installed
    config.data.stream = False  # decode training images batch by batch, never all of them
    config.data.memory_limit_mb = 4096  # decoded images above this go to a memory-mapped file
    config.data.synthetic_seed = 0  # of the generated images

    config.augment = ConfigDict()  # training images only, on the device, keyed per image
    config.augment.flip_left_right = False
    config.augment.flip_up_down = False
    config.augment.rotate_degrees = 0.0  # uniform in [-r, r]; 180 for parts at any angle
    config.augment.shift = 0.0  # uniform in [-s, s] as a share of the image side
    config.augment.brightness = 0.0  # added to all pixels, uniform in [-b, b] of the full range

    config.model = ConfigDict()  # name = which builder; the other keys are its options
    config.model.name = ""

    config.train = ConfigDict()
    config.train.epochs = 100  # passes over the training images
    config.train.steps = 0  # optimiser steps; overrides epochs when above 0
    config.train.batch_size = 8  # images in one optimiser step, over all devices
    config.train.accumulate = 1  # parts into which a batch is split to save memory
    config.train.optimizer = "adam"  # adam | adamw | sgd
    config.train.betas = (0.9, 0.999)  # of adam and adamw: decay of the mean and of the square
    config.train.learning_rate = 1e-4
    config.train.schedule = "constant"  # constant | cosine (to zero at the last step)
    config.train.warmup_steps = 0  # linear from zero
    config.train.weight_decay = 0.0  # adamw: decoupled; adam, sgd: added to the gradient (L2)
    config.train.gradient_clip = 0.0  # global norm; 0 = none
    config.train.learning_rate_multipliers = ConfigDict()  # parameter label -> factor; 0 freezes
    config.train.weights = ""  # folder of `jaxad convert` whose weights the encoder starts from
    config.train.log_every = 20  # steps between rows of history.csv
    config.train.checkpoint_every = 100  # steps between checkpoints, each validated first
    config.train.devices = 0  # how many local devices; 0 = all
    config.train.force_pmap = False  # take the multi-device path on one device too

    config.evaluate = ConfigDict()
    config.evaluate.batch_size = 16
    config.evaluate.smoothing = 2.0  # sigma in pixels of the gaussian on every map; 0 = none
    config.evaluate.primary_map = ""  # the map that is shown and thresholded
    config.evaluate.primary_score = ""  # MAP:max, MAP:mean, MAP:top1 (mean of top 1 %) or a score
    config.evaluate.resolution = "model"  # model | original: at which size pixels are judged
    config.evaluate.protocol = "jaxad"  # jaxad | vae_compare | mvtec_official ...: protocol_figures
    config.evaluate.image_false_positive_rate = 0.05  # of the image threshold, on held-out images
    config.evaluate.pixel_false_positive_rate = 0.005  # of the pixel threshold, likewise
    config.evaluate.aupro_limit = 0.3  # false-positive rate to which AUPRO integrates
    config.evaluate.memory_limit_mb = 2048  # maps that would take more are judged batch by batch
    config.evaluate.report_images = 100  # most images shown in report.html

    return config
