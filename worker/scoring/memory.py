"""A memory of settled images, so that a resend is scored once."""

from collections import OrderedDict

Image = tuple[str, str, str]  # StudyInstanceUID, SOPInstanceUID, pixel digest


class Memory:
    """The images scored last, a bounded number for each partition. Only what was scored *and* acknowledged goes in."""

    def __init__(self, per_partition: int) -> None:
        self._per_partition = per_partition
        self._images: dict[int, OrderedDict[Image, None]] = {}

    def remember(self, partition: int, image: Image) -> None:
        """The image's scores are durable."""
        images = self._images.setdefault(partition, OrderedDict())
        images[image] = None
        images.move_to_end(image)
        if len(images) > self._per_partition:
            images.popitem(last=False)

    def knows(self, partition: int, image: Image) -> bool:
        """Whether the image was scored lately by this process."""
        return image in self._images.get(partition, ())

    def forget(self, partition: int) -> None:
        """The partition has another owner: what it does is not known here."""
        self._images.pop(partition, None)
