"""Every key there is, its unit and its default. The other configs start from this one and change what they need."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The default configuration: a small network on the digits that scikit-learn carries."""
    config = ConfigDict()
    config.seed = 0  # of initialisation, data order, augmentation and random widths
    config.platform = ""  # cpu, gpu or tpu; "" takes what JAX finds. Asking for an absent one is an error
    config.init_from = ""  # workdir of another run whose weights this one starts from
    config.init_classifier = True  # whether its classifier is taken too; False begins that anew, for other classes

    config.batch_size = 64  # images of one step over all devices
    config.num_train_steps = placeholder(int)  # steps; give this or num_epochs. `incremental`: of each phase
    config.num_epochs = placeholder(float)  # passes over the training split
    config.learning_rate = 0.1  # peak, for the batch size above; never scaled behind your back

    config.task = "classification"  # classification; detection, whose model is a ResNet and all else in `detection`
    config.model = model()
    config.dataset = dataset()
    config.detection = detection()
    config.schedule = schedule()
    config.optimizer = optimizer()

    config.switch_rule = "all"  # widths of a step: all; sandwich (US-Nets); incremental (narrow first, then frozen)
    config.label_smoothing = 0.0  # share of the target spread over all classes, 0 to 1
    config.dtype = "auto"  # of the computation: float32, bfloat16; auto: bfloat16 on GPU and TPU
    config.step_programs = "auto"  # fused: all widths in one; per_width: one each and an update; auto: by switch_rule
    config.batch_norm_group_size = 1  # devices that share batch-norm statistics in training
    config.accumulate_steps = 1  # parts of a batch that a device takes one after the other; batch norms see one part
    config.ema_decay = 0.0  # of moving averages of the weights, which are then what is evaluated; 0 keeps none

    config.log_every_steps = 20  # steps between lines of training metrics
    config.eval_every_steps = placeholder(int)  # steps between evaluations, each of which is saved; or epochs
    config.eval_every_epochs = placeholder(float)
    config.checkpoint_every_steps = placeholder(int)  # steps between checkpoints; this or checkpoint_every_epochs
    config.checkpoint_every_epochs = placeholder(float)
    config.keep_checkpoints = 3  # the newest so many stay, and the best by the widths' mean top-1 error, or box_ap
    config.calibration_batches = 16  # training batches whose statistics --mode=calibrate averages
    return config.lock()


def model() -> ConfigDict:
    """The network; a key that is None is left to the family's own default."""
    config = ConfigDict()
    config.name = "mobilenet_v1_tiny"
    config.widths = (0.25, 0.5, 0.75, 1.0)  # ascending; a single one trains an individual network
    config.batch_norm = "switchable"  # switchable; shared_affine (US-Nets); shared (the naive way)
    config.batch_norm_momentum = 0.9  # weight of the old value in running averages
    config.stem = placeholder(str)  # imagenet (halves the resolution), small (keeps it: 8 to 64 pixels)
    config.tail_bn = placeholder(str)  # MobileNet v2: shared, private
    return config


def dataset() -> ConfigDict:
    """The images."""
    config = ConfigDict()
    config.name = "digits"  # digits; folder; any image classification data set of tfds
    config.data_dir = ""  # where tfds keeps its data, or the image folder; "" is tfds's own default
    config.train_split = "train"
    config.eval_split = "test"
    config.image_size = 16  # pixels, of the square that the network sees
    config.eval_resize = 16  # pixels of the shorter side before the centre crop of evaluation
    config.augmentation = "basic"  # none; basic (shift); inception (crop area .08-1); mobile (crop area .25-1)
    config.flip = False  # whether training images are mirrored at random
    config.color_jitter = 0.0  # strength of brightness, contrast and saturation jitter, 0 to 1
    config.pca_noise = 0.0  # standard deviation of AlexNet's lighting noise
    config.shuffle_buffer = 8192  # encoded examples held in memory for each device
    config.skip_damaged = False  # whether damaged examples are left out and counted, rather than an error
    return config


def detection() -> ConfigDict:
    """What is behind the backbone of a detector, and how it sees images; read where task=detection."""
    config = ConfigDict()
    config.masks = False  # whether there is a mask head: Mask R-CNN
    config.num_keypoints = 0  # of an object, as the data set has them: Keypoint R-CNN; 0 is no keypoint head
    config.frozen_stages = 1  # of the backbone that do not train, the stem with the first; 0 trains all
    config.frozen_batch_norm = True  # whether the backbone's batch norms stay as they are; else frozen_stages is 0
    config.short_side = 800  # pixels to which the shorter side of an image is scaled,
    config.long_side = 1333  # unless the longer one would come to more than this
    config.with_empty = False  # whether images without objects are trained on
    config.most_objects = 100  # of an image that are learned, the largest
    config.mask_size = 112  # pixels of a side at which an object's mask within its box is kept
    config.features = 256  # channels of the feature pyramid and of the heads' convolutions
    config.box_features = 1024  # outputs of the box head's dense layers
    config.keypoint_features = 512  # channels of the keypoint head's convolutions
    config.anchor_scale = 8.0  # side of the square anchor over its level's step
    config.rpn_samples = 256  # anchors of an image that are learned from
    config.box_samples = 512  # proposals of an image that are learned from
    config.train_proposals = 2000  # of a level before suppression, and of an image after it
    config.test_proposals = 1000  # likewise, in evaluation
    config.detections = 100  # of an image at most
    return config


def schedule() -> ConfigDict:
    """The learning rate over time. Epochs and steps of one duration exclude each other."""
    config = ConfigDict()
    config.name = "cosine"  # constant, multistep, exponential, linear, cosine; the last two end at 0
    config.factor = 0.1  # multistep: at each boundary; exponential: at each epoch's end
    config.boundaries_steps = ()  # multistep
    config.boundaries_epochs = ()  # multistep
    config.warmup_steps = placeholder(int)  # linear rise to the peak
    config.warmup_epochs = placeholder(float)
    config.warmup_factor = 0.0  # share of the peak at which the rise starts
    return config


def optimizer() -> ConfigDict:
    """One update for all widths."""
    config = ConfigDict()
    config.name = "sgd"  # any optimiser of optax by name
    config.options = "momentum=0.9, nesterov=True"  # its arguments, as in a Python call
    config.weight_decay = 1e-4  # on dense and non-depthwise convolution kernels only
    config.clip_norm = 0.0  # global norm to which summed gradients are clipped; 0 does not clip
    return config
