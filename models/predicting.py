"""Images of any size -> a network's predictions, at the sizes that its tasks were trained on.

Shapes: H W height and width.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from models.bundle import Predictor


@torch.inference_mode()
def predict_images(predictor: Predictor, images: Sequence[Image.Image]) -> list[dict[str, Tensor]]:
    """Map images of any size to each task's prediction, from the size that the task was trained on."""
    if not images:
        return []
    network = predictor.network
    sizes = {name: task.spec.size or network.spec.backbone.size for name, task in network.tasks.items()}
    outputs: dict[str, Tensor] = {}
    for size in dict.fromkeys(sizes.values()):
        names = [name for name in sizes if sizes[name] == size]
        outputs |= network(torch.stack([resized(image, size) for image in images]), names)
    found = {name: task.predict(outputs[name].float()) for name, task in network.tasks.items()}
    return [{name: values[row] for name, values in found.items()} for row in range(len(images))]


def resized(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Map an image to uint8 [3, H, W] of a size, resized as `prepare` does."""
    height, width = size
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)
