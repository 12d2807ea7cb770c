"""Object detection on a trained backbone (Table 4): Faster R-CNN, COCO's layout, COCO's mAP."""
