"""ImageNet's colours, of values in 0..1."""

MEAN = (0.485, 0.456, 0.406)
STDDEV = (0.229, 0.224, 0.225)

# Principal components of RGB values (AlexNet, section 4.1): the columns of EIGENVECTORS.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
