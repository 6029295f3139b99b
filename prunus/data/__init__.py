"""Data sets: settings that give three splits of (image, mask) and the names of the classes.

    data = StreetData(size=(128, 256), num_train=480)          # drawn, no files needed
    data = CamVidData(root="/data/camvid")                     # SegNet's layout
    data = CityscapesData(root="/data/cityscapes")             # leftImg8bit/ and gtFine/
    for epoch in range(epochs):
        train.set_epoch(epoch)                                 # train = data.train()
        for image, mask in DataLoader(train, batch_size=8, shuffle=True, num_workers=2): ...

An image is float32 [3, H, W], normalised; a mask int64 [H, W] of classes, 255 where a pixel counts for nothing.
Each training sample's augmentation depends on (seed, epoch, index) only, whatever the number of workers.

**To add a reader**, write one file with one class, here or in a package of your own, and name it in the recipe
(`data.class_path: my_package.my_file.MyData`):

1. a frozen, keyword-only dataclass that derives from `SegmentationData`; its fields are the recipe's keys:
   `root`, `size`, `augmentation`, `seed`, `cache`, `max_pixels`, and whatever else the data needs;
2. `class_names` and `palette` as class variables;
3. `source(split)`: for pairs of files a `FileSource`, which reads, checks and resizes them; a table says which class
   a value in a mask file stands for (`value_table`), and `colours` which a colour does, where masks are pictures of
   colours or have a palette: {(128, 64, 128): 0, ...}; `check_layout` refuses a folder that does not hold what
   is expected, and says what is. Data of another kind returns any object with the three methods of `Source`.

`camvid.py` and `cityscapes.py` are such readers. A reader of labelled images derives from `ClassificationData` and
returns from `source(split)` the images and the label of each: `image_folder.py`, `cifar10.py`, `chars74k.py`.
A reader of images with boxes derives from `DetectionData` and returns from `source(split, checker)` the images and the
objects in each, usually `AnnotatedFiles`: `voc.py`, `kitti.py`, `coco.py`, `street/boxes.py`.
Several readers of the same images become one set for several tasks: `CombinedData`, `street/multi_task.py`.
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
