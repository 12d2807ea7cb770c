"""Classifiers by name: ``build``, and the CIFAR networks of the paper."""

from selfdistill.models.build import available, build
from selfdistill.models.densenet import CifarDenseNet
from selfdistill.models.resnet import CifarResNet

__all__ = ["CifarDenseNet", "CifarResNet", "available", "build"]
