"""The photo that a user uploads, and the avatar that is made of it."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageOps

PHOTO_SIZE = (4_000, 3_000)  # pixels: 12 megapixels, what a telephone takes
AVATAR_SIZES = (512, 256)  # pixels, square


def make_photo(path: Path, size: tuple[int, int] = PHOTO_SIZE) -> None:
    """Write a JPEG of `size` pixels with enough detail that decoding it is real work."""
    coarse = Image.effect_noise((size[0] // 10, size[1] // 10), 80).resize(
        size, Image.Resampling.BICUBIC
    )
    fine = Image.effect_noise(size, 40)
    gradient = Image.linear_gradient("L").resize(size)
    partial = path.with_suffix(".partial")
    Image.merge("RGB", (coarse, fine, gradient)).save(partial, "JPEG", quality=92)
    partial.replace(path)


def make_avatar(photo: Path, folder: Path, user_id: int) -> Path:
    """Decode the photo and write the user's avatars; return the path of the largest.

    Doing it twice is harmless: the name is the user's, the content is the same, and a rename puts
    it in place, so a worker that dies half-way leaves no half picture behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(photo) as image:
        # draft() would let the decoder skip most of the work; an honest service keeps the quality.
        image.load()
        for size in AVATAR_SIZES:
            _save(
                ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS),
                _path(folder, user_id, size),
            )
    return _path(folder, user_id, AVATAR_SIZES[0])


def avatar_owners(folder: Path) -> list[int]:
    """Return the users in the folder whose avatars are all there and can be read."""
    owners = {int(path.stem.partition("-")[0]) for path in folder.glob("*-*.jpg")}
    return sorted(user_id for user_id in owners if _complete(folder, user_id))


def _complete(folder: Path, user_id: int) -> bool:
    return all(_is_square(_path(folder, user_id, size), size) for size in AVATAR_SIZES)


def _is_square(path: Path, size: int) -> bool:
    if not path.exists():
        return False
    with Image.open(path) as image:
        return image.size == (size, size)


def _path(folder: Path, user_id: int, size: int) -> Path:
    return folder / f"{user_id}-{size}.jpg"


def _save(image: Image.Image, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")  # two workers may hold the same message
    image.save(partial, "JPEG", quality=88)
    partial.replace(path)
