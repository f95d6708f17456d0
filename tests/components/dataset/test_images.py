import contextlib
import hashlib
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from itertools import combinations, pairwise

import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2 as transforms

from components.dataset.images import (
    SCANS,
    BadImage,
    Inspected,
    decode,
    fit,
    inspect,
    phash,
    read_jpeg_header,
    size,
    sums,
    thumbnail,
)
from components.dataset.quarantine import REASONS
from tests.components.dataset.pictures import (
    chunk,
    every_kind,
    jpeg,
    oriented,
    picture,
    png,
    png_of,
    save,
)

LIMIT = 1_000_000
KINDS = every_kind()


def pillow(content: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(content)))


def reason(content: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(BadImage) as caught:
        inspect(content, max_pixels)
    assert caught.value.detail
    assert " at 0x" not in caught.value.detail  # no address: the quarantine is the same whenever it is written
    assert caught.value.reason in REASONS
    return caught.value.reason


def distance(left: int, right: int) -> int:
    return (left ^ right).bit_count()


# What is read


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_read(kind: str) -> None:
    found = inspect(KINDS[kind], LIMIT)
    assert (found.width, found.height) == (144, 96)
    grey = found.channels == 1
    pixels = decode(found.content, found.channels)
    assert pixels.shape == (96, 144, found.channels)
    assert pixels.flags.c_contiguous
    image = Image.open(io.BytesIO(KINDS[kind]))
    if image.mode.startswith("I;16"):
        expected = np.asarray(image) >> 8  # and not clipped, as Pillow's own conversion would
    else:
        expected = np.asarray(image.convert("L" if grey else "RGB"))
    np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_is_stored_as_it_is_when_it_comes_again(kind: str) -> None:
    found = inspect(KINDS[kind], LIMIT)
    again = inspect(found.content, LIMIT)
    assert again.content == found.content
    assert again.phash == found.phash
    np.testing.assert_array_equal(again.sums, found.sums)


def test_files_that_every_reader_knows_are_stored_as_they_came() -> None:
    kept = {kind for kind, content in KINDS.items() if inspect(content, LIMIT).content == content}
    assert kept == {"JPEG L", "JPEG RGB", "JPEG progressive", "PNG L", "PNG RGB", "WEBP RGB", "WEBP lossless"}


def test_other_files_are_stored_as_png_with_nothing_lost() -> None:
    for kind, content in KINDS.items():
        stored = inspect(content, LIMIT).content
        if stored != content:
            image = Image.open(io.BytesIO(stored))
            assert image.format == "PNG", kind
            assert image.mode in ("L", "RGB"), kind
            assert not image.info


def test_grey_is_one_channel_and_all_else_is_three() -> None:
    grey = {kind for kind, content in KINDS.items() if inspect(content, LIMIT).channels == 1}
    assert grey == {
        *("JPEG L", "PNG 1", "PNG L", "PNG LA", "PNG 16 bit", "BMP 1", "BMP L"),
        *("TIFF 1", "TIFF L", "TIFF LA", "TIFF 16 bit", "TIFF fax"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
    ids=lambda value: str(value),
)
def test_every_orientation_is_honoured(kind: str, options: dict[str, bool], orientation: int) -> None:
    content = oriented(orientation, kind, **options)
    found = inspect(content, LIMIT)
    expected = np.asarray(pillow(content).convert("RGB"))
    assert (found.height, found.width) == expected.shape[:2] == ((96, 144) if orientation < 5 else (144, 96))
    np.testing.assert_array_equal(decode(found.content, 3), expected)
    assert size(found.content) == (found.width, found.height)
    upright = inspect(save(Image.fromarray(expected), "PNG"), LIMIT)
    assert distance(found.phash, upright.phash) <= 2


def test_a_cmyk_jpeg_that_adobe_inverted_is_read_right() -> None:
    content = KINDS["JPEG CMYK"]
    assert b"Adobe" in content
    pixels = decode(inspect(content, LIMIT).content, 3)
    difference = np.abs(pixels.astype(int) - picture())
    assert difference.mean() < 12


def test_a_grey_image_is_read_in_three_channels_and_a_coloured_one_in_one() -> None:
    grey = decode(KINDS["JPEG L"], 3)
    assert grey.shape == (96, 144, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    for kind in ("JPEG RGB", "PNG RGB", "WEBP lossless"):
        assert decode(KINDS[kind], 1).shape == (96, 144, 1)


def test_a_view_of_a_file_is_read_like_the_file() -> None:
    for content in (jpeg(), png()):
        view = memoryview(b"before" + content + b"after")[6:-5]
        np.testing.assert_array_equal(decode(view, 3), decode(content, 3))
        np.testing.assert_array_equal(fit(view, (32, 32, 3)), fit(content, (32, 32, 3)))


# How large


def test_the_orientation_of_a_png_may_stand_behind_its_pixels() -> None:
    content = oriented(6, "PNG")
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4])
    rest = content[:start] + content[start + length :]
    end = rest.index(b"IEND") - 4
    behind = rest[:end] + content[start : start + length] + rest[end:]
    found = inspect(behind, LIMIT)
    assert (found.width, found.height) == size(behind) == size(memoryview(behind)) == size(content) == (96, 144)
    assert decode(behind, 3).shape == fit(behind, (144, 96, 3)).shape == (144, 96, 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_as_small_as_is_large_enough(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = save(Image.fromarray(picture(512, 768)), "JPEG", exif=exif)
    for (height, width), (rows, columns) in [
        ((1, 1), (64, 96)),
        ((64, 96), (64, 96)),
        ((65, 1), (128, 192)),
        ((1, 97), (128, 192)),
        ((256, 256), (256, 384)),
        ((257, 1), (512, 768)),
        ((9999, 9999), (512, 768)),
    ]:
        if orientation == 1:
            assert decode(content, 3, (height, width)).shape == (rows, columns, 3)
        else:
            assert decode(content, 3, (width, height)).shape == (columns, rows, 3)


def test_an_image_is_fitted_as_torchvision_does_it() -> None:
    image = Image.fromarray(picture(512, 768))
    expected = transforms.CenterCrop(224)(transforms.Resize(256)(image))
    fitted = fit(save(image, "PNG"), (224, 224, 3)).astype(int)
    difference = np.abs(fitted - np.asarray(expected))
    assert difference.max() <= 1


def test_an_image_of_the_right_shape_is_not_touched() -> None:
    np.testing.assert_array_equal(fit(png(), (96, 144, 3)), picture())


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (400, 3), (7, 9), (500, 500)])
def test_an_image_of_any_shape_is_fitted(shape: tuple[int, int]) -> None:
    for content in (jpeg(*shape), png(*shape)):
        for wanted in ((32, 32, 3), (28, 28, 1), (20, 50, 3)):
            assert fit(content, wanted).shape == wanted


@pytest.mark.slow
def test_fitting_a_large_jpeg_scaled_looks_like_fitting_all_of_it() -> None:
    pixels = picture(1600, 1200)
    small = fit(simplejpeg.encode_jpeg(pixels, 95), (64, 64, 3)).astype(int)
    whole = fit(save(Image.fromarray(pixels), "PNG"), (64, 64, 3))
    assert np.abs(small - whole).mean() < 3


# What is refused


def test_a_file_without_bytes_is_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "content", [b"\0" * 100, b"hello, world", b"<svg/>", b"RIFF1234AVI ", b"8BPS\0\1", b"%PDF-1.7"]
)
def test_a_file_of_another_kind_is_unsupported(content: bytes) -> None:
    assert reason(content) == "unsupported"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "animated" not in kind])  # whose first frame may be whole
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_never_taken_for_a_whole_one(kind: str, share: float) -> None:
    content = KINDS[kind]
    assert reason(content[: int(share * len(content))]) in ("truncated", "undecodable")


@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        *(("JPEG RGB", cut) for cut in (1, 10, 100)),
        *(("JPEG progressive", cut) for cut in (10, 100)),
        *((kind, cut) for kind in ("PNG RGB", "WEBP RGB", "BMP RGB") for cut in (1, 10, 100)),
    ],
)
def test_a_file_that_ends_too_early_is_truncated(kind: str, cut: int) -> None:
    assert reason(KINDS[kind][:-cut]) == "truncated"


def test_bytes_after_a_jpeg_do_no_harm() -> None:
    content = jpeg() + b"\0" * 50
    assert inspect(content, LIMIT).content == content


def test_a_harmless_byte_before_a_marker_does_no_harm() -> None:
    content = jpeg()
    assert inspect(content[:-2] + b"\7" + content[-2:], LIMIT).width == 144


@pytest.mark.parametrize("damage", [b"", bytes(400), b"\xff\xd9"], ids=["gone", "zeros", "an end"])
def test_damage_within_a_jpeg_is_found(damage: bytes) -> None:
    """Unless by chance it is valid code: a JPEG has no checksum."""
    content = bytearray(jpeg(400, 400))
    content[3000:3400] = damage
    assert reason(bytes(content)) == "undecodable"


@pytest.mark.parametrize("where", [20, 60, -30])
def test_one_bit_that_turned_in_a_png_is_found(where: int) -> None:
    content = bytearray(png())
    content[where] ^= 1
    assert reason(bytes(content)) in ("undecodable", "truncated")


def test_an_image_of_no_size_is_undecodable() -> None:
    content = jpeg().replace(struct.pack(">HH", 96, 144), struct.pack(">HH", 96, 0), 1)
    assert reason(content) == "undecodable"


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 12), (5, 2), (-1, 0xC3), (-1, 0xC9)],
    ids=["12 bits", "2 channels", "lossless", "arithmetic"],
)
def test_a_jpeg_that_few_can_read_is_unsupported(place: int, value: int) -> None:
    content = bytearray(jpeg())
    frame = content.index(b"\xff\xc0\0\x11") + 2
    content[frame - 1 if place == -1 else frame + 2 + place] = value
    assert reason(bytes(content)) == "unsupported"


def test_floating_point_is_unsupported() -> None:
    assert reason(save(Image.new("F", (9, 9)), "TIFF")) == "unsupported"


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_with_too_many_pixels_is_refused(kind: str) -> None:
    assert reason(KINDS[kind], 144 * 96 - 1) == "too many pixels"
    assert inspect(KINDS[kind], 144 * 96).width == 144


# Bombs


def header_bombs() -> dict[str, bytes]:
    wide, high = 60_000, 50_000
    tiff = bytearray(save(Image.new("L", (9, 7)), "TIFF"))
    for tag, length in ((256, wide), (257, high)):
        place = next(at for kind in (3, 4) if (at := tiff.find(struct.pack("<HH", tag, kind))) > 0)
        tiff[place : place + 12] = struct.pack("<HHII", tag, 4, 1, length)
    return {
        "JPEG": jpeg().replace(struct.pack(">HH", 96, 144), struct.pack(">HH", high, wide), 1),
        "PNG": png_of(struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0), zlib.compress(bytes(100))),
        "GIF": b"GIF89a"
        + struct.pack("<HHBBB", wide, high, 0x80, 0, 0)
        + bytes(6)
        + b",\0\0\0\0"
        + struct.pack("<HHBB", wide, high, 0, 2)
        + b"\2\x4c\1\0;",
        "BMP": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, wide, high, 1, 24, 0, 0, 0, 0, 0, 0),
        "WEBP": b"RIFF"
        + struct.pack("<I", 22)
        + b"WEBPVP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (16_382).to_bytes(3, "little") * 2,
        "WEBP lossless": b"RIFF"
        + struct.pack("<I", 18)
        + b"WEBPVP8L"
        + struct.pack("<IB", 5, 0x2F)
        + struct.pack("<I", 0x3FFF | 0x3FFF << 14)
        + b"\0",
        "TIFF": bytes(tiff),
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "WEBP lossless", "TIFF"])
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    start = time.perf_counter()
    assert reason(header_bombs()[kind], 50_000_000) == "too many pixels"
    assert time.perf_counter() - start < 0.5


@pytest.mark.slow
def test_a_text_that_unfolds_without_end_is_refused() -> None:
    text = b"Comment\0\0" + zlib.compress(bytes(100 * 2**20), 9)
    content = png_of(struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0), zlib.compress(bytes(20)), chunk(b"zTXt", text))
    assert len(content) < 150_000
    assert reason(content) == "undecodable"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_very_many_scans_is_refused_and_not_even_shown(mode: str) -> None:
    content = save(Image.fromarray(picture()).convert(mode), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    bomb = content[:last] + content[last:-2] * SCANS + content[-2:]
    assert reason(bomb) == "unsupported"
    assert thumbnail(content, LIMIT)
    assert thumbnail(bomb, LIMIT) is None


def test_a_progressive_jpeg_in_cmyk_has_half_the_limit() -> None:
    content = save(Image.fromarray(picture(100, 100)).convert("CMYK"), "JPEG", progressive=True)
    assert inspect(content, 20_000).width == 100
    assert reason(content, 19_999) == "too many pixels"
    assert inspect(save(Image.fromarray(picture(100, 100)).convert("CMYK"), "JPEG"), 10_000).width == 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["progressive", "full", "cmyk", "png", "turned", "grey", "palette", "tiff"])
def test_the_memory_for_a_large_image_is_bounded(kind: str) -> None:
    """An image of 48 megapixels, checked in a process of its own."""
    program = """
import sys
from components.dataset.images import inspect
from tests.memory import peak
inspect(sys.stdin.buffer.read(), 50_000_000)
print(peak())
"""
    image = Image.fromarray(np.kron(picture(600, 800), np.ones((10, 10, 1), np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    content = {
        "progressive": lambda: save(image, "JPEG", progressive=True, quality=80),
        "full": lambda: save(image, "JPEG", progressive=True, quality=80, subsampling=0),
        "cmyk": lambda: save(image.convert("CMYK"), "JPEG", quality=80, exif=turned),
        "png": lambda: save(image, "PNG", compress_level=1),
        "turned": lambda: save(image.convert("RGBA"), "PNG", compress_level=1, exif=turned),
        "grey": lambda: save(image.convert("LA"), "PNG", compress_level=1, exif=turned),
        "palette": lambda: save(image.convert("P"), "PNG", compress_level=1, exif=turned),
        "tiff": lambda: save(image, "TIFF", compression="tiff_lzw"),
    }[kind]()
    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True)
    peak = int(done.stdout) / 1024
    print(f"{kind}: {peak:.0f} MiB")
    assert peak <= 512 - 80  # so much may be waiting to be written


# The hash and the sums


def test_the_hash_is_that_of_its_definition() -> None:
    for shape in ((96, 144), (8, 9), (17, 31), (200, 50)):
        pixels = picture(*shape)
        grey = pixels.astype(object) @ np.array([299, 587, 114], object)
        rows, columns = [i * shape[0] // 8 for i in range(9)], [i * shape[1] // 9 for i in range(10)]
        bits = ""
        for top, bottom in pairwise(rows):
            fields = [(grey[top:bottom, left:right].sum(), right - left) for left, right in pairwise(columns)]
            bits += "".join(str(int(a * m < b * n)) for (a, n), (b, m) in pairwise(fields))
        assert int(phash(pixels[None])[0]) == int(bits, 2)


def test_hashes_of_many_images_are_those_of_each() -> None:
    many = np.stack([picture(40, 50, seed) for seed in range(20)])
    assert phash(many).tolist() == [int(phash(one[None])[0]) for one in many]


def test_an_image_that_was_changed_a_little_has_nearly_the_same_hash() -> None:
    image = Image.fromarray(picture(400, 600))
    first = inspect(save(image, "PNG"), LIMIT).phash
    variants = [
        save(image, "JPEG", quality=40),
        save(image.resize((300, 200)), "JPEG", quality=80),
        save(image.resize((900, 600)), "WEBP"),
        save(Image.fromarray((picture(400, 600) * 0.8).astype(np.uint8)), "PNG"),
    ]
    assert max(distance(first, inspect(content, LIMIT).phash) for content in variants) <= 3


def test_images_that_differ_have_hashes_far_apart() -> None:
    hashes = [inspect(png(seed=seed), LIMIT).phash for seed in range(12)]
    assert min(distance(*pair) for pair in combinations(hashes, 2)) > 12


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (5, 7)])
def test_narrow_images_have_a_hash(shape: tuple[int, int]) -> None:
    assert 0 <= inspect(png(*shape), LIMIT).phash < 2**64


def test_sums_are_exact() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (7, 300, 301, 3), np.uint8)
    whole = images.reshape(-1, 3).astype(np.int64)
    expected = [[len(whole)] * 3, whole.sum(axis=0).tolist(), (whole**2).sum(axis=0).tolist()]
    assert sums(images).tolist() == expected


def test_an_image_is_summed_as_it_is_measured() -> None:
    found = inspect(png(200, 300), LIMIT)
    np.testing.assert_array_equal(found.sums, sums(picture(200, 300)[None]))
    grey = inspect(KINDS["PNG L"], LIMIT)
    assert grey.sums.shape == (3, 1)
    large = inspect(jpeg(512, 768), LIMIT)
    assert large.sums[0].tolist() == [128 * 192] * 3
    means = large.sums[1] / large.sums[0]
    np.testing.assert_allclose(means, picture(512, 768).mean(axis=(0, 1)), atol=1)


# Thumbnails


def test_a_thumbnail_is_a_small_upright_jpeg() -> None:
    for content in (oriented(6, "JPEG"), oriented(6, "PNG"), KINDS["PNG 16 bit"]):
        found = thumbnail(content, LIMIT)
        assert found is not None
        image = Image.open(io.BytesIO(found))
        assert image.format == "JPEG"
        assert max(image.size) <= 96
    assert read_jpeg_header(thumbnail(oriented(6, "JPEG"), LIMIT) or b"").size == (64, 96)


def test_a_truncated_jpeg_has_a_thumbnail_of_what_is_there() -> None:
    content = jpeg(400, 400)
    assert reason(content[: len(content) // 2]) == "truncated"
    found = thumbnail(content[: len(content) // 2], LIMIT)
    assert found is not None
    assert read_jpeg_header(found).size == (96, 96)


def test_what_cannot_be_decoded_has_no_thumbnail() -> None:
    for content in (b"", b"hello", png()[:200], header_bombs()["PNG"], header_bombs()["JPEG"]):
        assert thumbnail(content, 50_000_000) is None


# Any bytes whatever


def look(content: bytes) -> Inspected | BadImage:
    try:
        return inspect(content, LIMIT)
    except BadImage as bad:
        return bad


def check_any(content: bytes) -> None:
    start = time.perf_counter()
    found = look(content)
    if isinstance(found, BadImage):
        assert found.reason in REASONS
        assert found.detail
    else:
        assert decode(found.content, found.channels).shape == (found.height, found.width, found.channels)
        assert fit(found.content, (16, 16, 3)).shape == (16, 16, 3)
        assert size(found.content) == (found.width, found.height)
    for read in (lambda: decode(content, 3), lambda: fit(content, (8, 8, 1)), lambda: size(content)):
        with contextlib.suppress(BadImage):
            if not huge(content):
                read()
    thumbnail(content, LIMIT)
    assert time.perf_counter() - start < 5


def huge(content: bytes) -> bool:
    """Whether a header claims more than `inspect` would have let through, which `decode` is never given."""
    try:
        width, height = size(content)
    except BadImage:
        return False
    return width * height > LIMIT


MAGIC = st.sampled_from([content[:count] for content in KINDS.values() for count in (4, 12, 30, 100)])
FUZZ = settings(
    max_examples=int(os.environ.get("RETRAIN_FUZZ", "150")),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@FUZZ
@given(st.binary(max_size=300), MAGIC)
def test_any_bytes_are_an_image_or_a_bad_one(content: bytes, magic: bytes) -> None:
    check_any(content)
    check_any(magic + content)


@pytest.mark.slow
@FUZZ
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_a_mutated_file_is_an_image_or_a_bad_one(kind: str, data: st.DataObject) -> None:
    content = bytearray(KINDS[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        early = data.draw(st.booleans())
        place = data.draw(st.integers(0, min(len(content), 200 if early else len(content)) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert", "zero", "end"]))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        if how == "set":
            content[place : place + len(piece)] = piece
        elif how == "cut":
            del content[place : place + len(piece)]
        elif how == "insert":
            content[place:place] = piece
        elif how == "zero":
            content[place : place + 4] = b"\xff\xff\xff\xff" if piece[0] % 2 else bytes(4)
        elif len(content) > 40:
            del content[max(place, 30) :]
    check_any(bytes(content))


def test_the_same_file_is_stored_as_the_same_bytes() -> None:
    for content in KINDS.values():
        assert (
            hashlib.sha256(inspect(content, LIMIT).content).digest()
            == hashlib.sha256(inspect(content, LIMIT).content).digest()
        )
