"""Published data sets in the forms in which they are shipped, as cases of folders."""

from __future__ import annotations

import json

from folder_case import Case

SPLIT = {"train/good/{0-4}.png": "photo", "test/good/{0-1}.png": "photo"}


def _real_iad(kind: str, path: str, drawn: str | None = None) -> dict[str, str | None]:
    return {"category": "usb", "anomaly_class": kind, "image_path": path, "mask_path": drawn}


PUBLISHED: dict[str, Case] = {
    "MVTec LOCO AD: a folder of masks for every image": Case(
        SPLIT | {"validation/good/{0-1}.png": "photo",
                 "test/logical_anomalies/{0-1}.png": "photo",
                 "ground_truth/logical_anomalies/{0-1}/{0-2}.png": "mask"},
        "train: 5 good; validation: 2 good; test: 2 good, 2 logical_anomalies (2 masks)",
        ("recognised as MVTec LOCO AD",),
        texts={"defects_config.json": '[{"defect_name": "missing", "pixel_value": 255, '
               '"saturation_threshold": 9, "relative_saturation": false}]'},
    ),
    "the same without its file `defects_config.json`": Case(
        SPLIT | {"test/logical_anomalies/{0-1}.png": "photo",
                 "ground_truth/logical_anomalies/{0-1}/{0-2}.png": "mask"},
        "train: 5 good; test: 2 good, 2 logical_anomalies (2 masks)",
    ),
    "MVTec AD 2": Case(
        {"train/good/{0-4}_regular.png": "photo", "validation/good/{0-1}_regular.png": "photo",
         "test_public/good/{0-1}_regular.png": "photo",
         "test_public/bad/{0-1}_overexposed.png": "photo",
         "test_public/ground_truth/bad/{0-1}_overexposed_mask.png": "mask",
         "test_private/{0-3}.png": "photo", "test_private_mixed/{0-2}.png": "photo"},
        "train: 5 good; validation: 2 good; test: 2 good, 2 bad (2 masks)",
        ("recognised as MVTec AD 2", "4 files are left out: test_private has no labels",
         "3 files are left out: test_private_mixed has no labels"),
    ),
    "MVTec 3D-AD: `rgb`, `gt` and `xyz` inside each kind": Case(
        {"train/good/rgb/{0-4}.png": "photo", "train/good/xyz/{0-4}.tiff": "photo",
         "test/good/rgb/{0-1}.png": "photo", "test/good/gt/{0-1}.png": "empty",
         "test/hole/rgb/{0-1}.png": "photo", "test/hole/gt/{0-1}.png": "mask",
         "test/hole/xyz/{0-1}.tiff": "photo"},
        "train: 5 good; test: 2 good (2 masks), 2 hole (2 masks)",
        ("recognised as MVTec 3D-AD", "7 files are left out: point clouds"),
    ),
    "VisA with its list of the split": Case(
        {"candle/Data/Images/Normal/{0-3}.JPG": "photo", "candle/Data/Images/Anomaly/0.JPG": "photo",
         "candle/Data/Masks/Anomaly/0.png": "ids"},
        "train: 3 good; test: 1 good, 1 bad (1 mask)",
        ("listed in", "recognised as VisA"),
        texts={"split_csv/1cls.csv": "object,split,label,image,mask\n" + "".join(
            f"candle,{split},normal,candle/Data/Images/Normal/{n}.JPG,\n"
            for n, split in enumerate(("train", "train", "train", "test"))
        ) + "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n"},
    ),
    "an object of VisA alone": Case(
        {"Data/Images/Normal/{0-4}.JPG": "photo", "Data/Images/Anomaly/0.JPG": "photo",
         "Data/Masks/Anomaly/0.png": "ids"},
        "train: 4 good; test: 1 good, 1 bad (1 mask)",
        ("recognised as VisA", "no split is there"),
    ),
    "VisA in its 1-class layout, with `data.name=visa`": Case(
        {"candle/train/good/{0-4}.JPG": "photo", "candle/test/good/0.JPG": "photo",
         "candle/test/bad/0.JPG": "photo", "candle/ground_truth/bad/0.png": "ids"},
        "train: 5 good; test: 1 good, 1 bad (1 mask)",
        options={"name": "visa", "category": "candle"},
    ),
    "Real-IAD with its JSON files": Case(
        {"realiad_1024/usb/OK/S1/{0-4}.jpg": "photo", "realiad_1024/usb/NG/HS/S2/0.jpg": "photo",
         "realiad_1024/usb/NG/HS/S2/0.png": "mask"},
        "train: 4 good; test: 1 good, 1 HS (1 mask)",
        ("recognised as Real-IAD",),
        texts={"realiad_jsons/realiad_jsons/usb.json": json.dumps(
            {"meta": {"normal_class": "OK", "prefix": "usb/"},
             "train": [_real_iad("OK", f"OK/S1/{n}.jpg") for n in range(4)],
             "test": [_real_iad("OK", "OK/S1/4.jpg"),
                      _real_iad("HS", "NG/HS/S2/0.jpg", "NG/HS/S2/0.png")]})},
    ),
    "MPDD, with `data.name=mpdd`": Case(
        {"tubes/train/good/{0-4}.png": "photo", "tubes/test/good/0.png": "photo",
         "tubes/test/anomalous/0.png": "photo", "tubes/ground_truth/anomalous/0_mask.png": "mask"},
        "train: 5 good; test: 1 good, 1 anomalous (1 mask)",
        options={"name": "mpdd", "category": "tubes"},
    ),
    "BTAD: masks in three formats, with `data.name=btad`": Case(
        {"01/train/ok/{0-4}.bmp": "photo", "01/test/ok/0.bmp": "photo",
         "01/test/ko/{0-2}.bmp": "photo", "01/ground_truth/ko/0.png": "mask",
         "01/ground_truth/ko/1.bmp": "mask", "01/ground_truth/ko/2.jpg": "mask"},
        "train: 5 good; test: 1 good, 3 ko (3 masks)",
        options={"name": "btad", "category": "01"},
    ),
    "KolektorSDD2": Case(
        {"train/{0-4}.png": "photo", "train/{0-3}_GT.png": "empty", "train/4_GT.png": "mask",
         "test/{0-1}.png": "photo", "test/0_GT.png": "empty", "test/1_GT.png": "mask"},
        "train: 4 good (4 masks), 1 defect (1 mask); test: 1 good (1 mask), 1 defect (1 mask)",
        ("defective images outside test, which are not used: 1, first",),
    ),
    "the same, with `data.name=kolektor_sdd2`": Case(
        {"train/{0-4}.png": "photo", "train/{0-3}_GT.png": "empty", "train/4_GT.png": "mask",
         "test/{0-1}.png": "photo", "test/0_GT.png": "empty", "test/1_GT.png": "mask"},
        "train: 4 good (4 masks), 1 defect (1 mask); test: 1 good (1 mask), 1 defect (1 mask)",
        ("defective images outside test, which are not used: 1, first",),
        options={"name": "kolektor_sdd2"},
    ),
    "DAGM 2007": Case(
        {"Class1/Train/{0-4}.PNG": "photo", "Class1/Train/Label/4_label.PNG": "mask",
         "Class1/Test/{0-2}.PNG": "photo", "Class1/Test/Label/2_label.PNG": "mask"},
        "train: 4 good, 1 defect (1 mask); test: 2 good, 1 defect (1 mask)",
        ("recognised as DAGM 2007", "defective images outside test, which are not used: 1, first"),
    ),
}  # fmt: skip
