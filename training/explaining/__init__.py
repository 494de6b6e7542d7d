"""What a network looked at: segmentation overlays, Grad-CAM, integrated gradients, Shapley values of regions."""
