"""Data sets: settings that provide three splits of (image, target) and the class names.

    data = StreetData(size=(128, 256), num_train=480)          # drawn, no files needed
    data = CamVidData(root="/data/camvid")                     # SegNet's layout
    data = CityscapesData(root="/data/cityscapes")             # leftImg8bit/ and gtFine/
    for epoch in range(epochs):
        train.set_epoch(epoch)                                 # train = data.train()
        for image, mask in DataLoader(train, batch_size=8, shuffle=True, num_workers=2): ...

An image is float32 [3, H, W], normalised; a mask is int64 [H, W] of class numbers, 255 for ignored pixels.
A training sample's augmentation depends only on (seed, epoch, index), not on the number of workers.

**To add a reader**, write one file with one class, here or in your own package, and name it in the recipe
(`data.class_path: my_package.my_file.MyData`):

1. a frozen, keyword-only dataclass that derives from `SegmentationData`; its fields are the recipe's keys:
   `root`, `size`, `augmentation`, `seed`, `cache`, `max_pixels`, and whatever else the data needs;
2. `class_names` and `palette` as class variables;
3. `source(split)`: for pairs of files return a `FileSource`, which reads, checks and resizes them. `value_table` maps
   the values in a mask file to classes; `colours` does so for masks that are colour images or have a palette:
   {(128, 64, 128): 0, ...}. `check_layout` refuses a folder with another layout and prints the expected one. For
   other data, return any object with the three methods of `Source`.

`camvid.py` and `cityscapes.py` are such readers. A reader of labelled images derives from `ClassificationData`, and its
`source(split)` returns the images and their labels: `image_folder.py`, `cifar10.py`, `chars74k.py`.
A reader of images with boxes derives from `DetectionData`, and its `source(split, checker)` returns the images and
their objects, usually as `AnnotatedFiles`: `voc.py`, `kitti.py`, `coco.py`, `street/boxes.py`.
Readers of the same images are combined for several tasks by `CombinedData`, as in `street/multi_task.py`.
"""

from prunus.data.augmentation import Augmentation
from prunus.data.camvid import CamVidData
from prunus.data.chars74k import Chars74KData
from prunus.data.cifar10 import CIFAR10Data
from prunus.data.cityscapes import CityscapesData
from prunus.data.classification import ClassificationData, ClassificationSplit, CropAndFlip
from prunus.data.coco import COCOData
from prunus.data.detection import DetectionData, DetectionSplit
from prunus.data.files import FileSource, check_layout
from prunus.data.image_folder import ImageFolderData
from prunus.data.interface import Data, Split
from prunus.data.kitti import KITTIData
from prunus.data.labelled import LabelledArray, LabelledFiles
from prunus.data.masks import value_table
from prunus.data.multi_task import CombinedData, MultiTaskData
from prunus.data.segmentation import SegmentationData, SegmentationDataset, normalise, to_colours, to_picture
from prunus.data.shards import ShardsData
from prunus.data.source import CachedSource, Source
from prunus.data.street import Scene, StreetData, render
from prunus.data.street.boxes import StreetBoxesData
from prunus.data.street.multi_task import StreetMultiTaskData
from prunus.data.voc import VOCData

__all__ = [
    "Augmentation",
    "CIFAR10Data",
    "COCOData",
    "CachedSource",
    "CamVidData",
    "Chars74KData",
    "CityscapesData",
    "ClassificationData",
    "ClassificationSplit",
    "CombinedData",
    "CropAndFlip",
    "Data",
    "DetectionData",
    "DetectionSplit",
    "FileSource",
    "ImageFolderData",
    "KITTIData",
    "LabelledArray",
    "LabelledFiles",
    "MultiTaskData",
    "Scene",
    "SegmentationData",
    "SegmentationDataset",
    "ShardsData",
    "Source",
    "Split",
    "StreetBoxesData",
    "StreetData",
    "StreetMultiTaskData",
    "VOCData",
    "check_layout",
    "normalise",
    "render",
    "to_colours",
    "to_picture",
    "value_table",
]
