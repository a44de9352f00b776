"""Detection, instance segmentation and keypoints: Faster, Mask and Keypoint R-CNN over a slimmable backbone."""
