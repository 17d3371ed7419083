"""What the words on a page mean, in a sentence or two: shown on hovering, focus or a tap."""

from __future__ import annotations

TERMS = {
    "image_auroc": "How well the scores part good from defective images, whatever the threshold: "
    "the chance that a defective image scores higher than a good one. 1 is perfect, 0.5 is a coin "
    "toss.",
    "image_ap": "Average precision: of the images over a threshold, the share that is defective, "
    "averaged over the thresholds at which one more defect is found. 1 is perfect; guessing gives "
    "the share of defective images.",
    "pixel_auroc": "How well the map parts pixels of defects from all others. 1 is perfect, 0.5 is "
    "a coin toss. Large defects count most.",
    "pixel_ap": "Average precision of the pixels: how clean the marked area is. 1 is perfect; "
    "guessing gives the share of defective pixels, often less than 0.05.",
    "aupro": "How much of every defect the map covers while few good pixels are marked. Each "
    "defect counts the same, small or large. 1 is perfect, guessing gives half of the limit: 0.15 "
    "for the usual 0.3.",
    "au_spro": "Like AUPRO for defects of which a part is enough: each counts as found once as "
    "many of its pixels are covered as its saturation threshold says. 1 is perfect.",
    "image_f1_max": "The best balance of defects found and false alarms avoided that any threshold "
    "reaches on these images. It is known only afterwards.",
    "score": "One number per image, larger is more anomalous. “:top1” is the mean of the highest "
    "hundredth of the map's pixels, “:max” the highest pixel, “:mean” the mean of all.",
    "map": "One number per pixel, larger is more anomalous: how the image differs from what the "
    "model makes of it. Models compare in several ways, and each is a map.",
    "threshold": "The score over which an image is rejected. It comes from good images that the "
    "model has not seen, never from test images.",
    "false_positive_rate": "The share of good images that are rejected: the false alarms.",
    "cross_fitted": "The good images are dealt into parts, and each part is scored by a model that "
    "was trained on the others. So every good image is scored as if it were new.",
    "held_out": "Left out of training, so that the model meets them as it meets new images.",
    "pixel_threshold": "The map's value over which a pixel belongs to an outlined region.",
    "verdict_found": "Defective, and rejected, wherever its outlines lie: they may mark something "
    "else than the defect.",
    "verdict_missed": "Defective, but accepted: the score does not exceed the threshold.",
    "verdict_false alarm": "Good, but rejected.",
    "verdict_passed": "Good, and accepted.",
    "verdict_rejected": "The score exceeds the threshold.",
    "verdict_accepted": "The score does not exceed the threshold.",
    "reconstruction": "What the model makes of the image from what it learned of good ones; a "
    "defect that it cannot rebuild shows as a difference.",
    "precision": "Of the rejected images, the share that is defective.",
    "recall": "Of the defective images, the share that is rejected.",
}
"""Name -> explanation."""
