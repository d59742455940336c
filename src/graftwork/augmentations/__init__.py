"""The shelf of augmentations: importing it puts every kind on it. To add one, write a class under `Augmentation`."""

from graftwork.choice import import_shelf

import_shelf(__name__)
