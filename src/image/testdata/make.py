"""Writes resample.json, processor.json and images/ beside this file, with Pillow 13.0.0, transformers 4.57.6, and
torch 2.11.0 with torchvision 0.26.0 on a CPU with AVX2 (for DINOv3, which has a fast image processor alone).

The pictures are computed, by the same formula here and in the tests; of each result the file holds an
FNV-1a hash of all bytes (equal hash: equal to the bit) and a few values to read when it differs. Of the
image files, images/decode.json holds the pixels as Pillow gives them: upright, transparency over white.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin
from transformers import (
    BeitImageProcessor,
    BitImageProcessor,
    ChineseCLIPImageProcessor,
    CLIPImageProcessor,
    DeiTImageProcessor,
    DINOv3ViTImageProcessorFast,
    DonutImageProcessor,
    NougatImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
    YolosImageProcessor,
)

HERE = Path(__file__).parent


def picture(width, height, margin=0):
    """A slope with noise on it; `margin` white pixels all around."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    slope = (x * 2 + y * 3 + c * 40) % 192
    noise = ((x * 73856093 ^ y * 19349663 ^ c * 83492791) >> 7) & 63
    image = (slope + noise).astype(np.uint8)
    inside = (x >= margin) & (x < width - margin) & (y >= margin) & (y < height - margin)
    return np.where(inside, image, 255).astype(np.uint8)


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def samples(array, count):
    flat = array.reshape(-1)
    places = [int(i * (flat.size - 1) // max(count - 1, 1)) for i in range(count)]
    return [[i, float(flat[i])] for i in sorted(set(places))]


def resample():
    cases = []
    sizes = [(5, 4, 3, 2), (5, 4, 7, 5), (5, 4, 5, 9), (5, 4, 2, 4), (1, 1, 6, 3), (40, 1, 7, 7),
             (1, 40, 7, 7), (97, 61, 32, 32), (97, 61, 33, 61), (97, 61, 97, 20), (64, 48, 151, 113),
             (300, 200, 17, 11), (33, 500, 12, 16), (500, 3, 16, 12), (31, 31, 30, 32)]
    for width, height, out_width, out_height in sizes:
        image = Image.fromarray(picture(width, height))
        for code in range(6):
            out = np.array(image.resize((out_width, out_height), resample=code))
            cases.append(case_of(width, height, out_width, out_height, code, None, out))
    gaps = [(97, 61, 12, 7), (97, 61, 24, 30), (98, 60, 10, 29), (300, 200, 31, 33), (300, 200, 80, 7),
            (63, 501, 5, 20), (64, 64, 8, 8), (61, 37, 60, 36), (101, 100, 3, 3)]
    for width, height, out_width, out_height in gaps:
        image = Image.fromarray(picture(width, height))
        for code in (0, 2, 3):
            out = np.array(image.resize((out_width, out_height), resample=code, reducing_gap=2.0))
            cases.append(case_of(width, height, out_width, out_height, code, 2.0, out))
    return cases


def case_of(width, height, out_width, out_height, code, gap, out):
    return {"from": [width, height], "to": [out_width, out_height], "resample": code, "gap": gap,
            "hash": fnv(out.tobytes()), "samples": samples(out, 4)}


def processor():
    classes = {c.__name__: c for c in (
        ViTImageProcessor, DeiTImageProcessor, BeitImageProcessor, BitImageProcessor, CLIPImageProcessor,
        SiglipImageProcessor, DonutImageProcessor, NougatImageProcessor, ChineseCLIPImageProcessor,
        YolosImageProcessor, DINOv3ViTImageProcessorFast)}
    square, wide, tall = (60, 60, 0), (90, 40, 0), (37, 81, 0)
    strip, pixel, large = (500, 3, 0), (1, 1, 0), (301, 260, 0)
    shapes = [square, wide, tall, strip, pixel, large]
    # A longer strip would vanish on so small a page, which the reference refuses too.
    page_shapes = [square, wide, tall, (90, 3, 0), pixel, large]
    page = {"size": {"height": 64, "width": 48}}
    lying = {"size": {"height": 48, "width": 64}}
    jobs = [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}, shapes),
        ("ViTImageProcessor", {}, [wide]),
        ("ViTImageProcessor", {"size": 30, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
                               "image_std": [0.229, 0.224, 0.225]}, [wide, large]),
        ("ViTImageProcessor", {"size": [20, 30], "resample": 1}, [tall]),
        ("ViTImageProcessor", {"do_resize": False}, [tall]),
        ("ViTImageProcessor", {"size": 24, "do_rescale": False}, [wide]),
        ("ViTImageProcessor", {"size": 24, "do_normalize": False}, [wide]),
        ("ViTImageProcessor", {"size": 24, "do_normalize": False, "do_rescale": False}, [wide]),
        ("ViTImageProcessor", {"size": 24, "rescale_factor": 0.0078125, "image_mean": 0.25,
                               "image_std": 2}, [wide]),
        ("DeiTImageProcessor", {"size": 36, "crop_size": 32}, shapes),
        ("DeiTImageProcessor", {}, [wide]),
        ("DeiTImageProcessor", {"size": 37, "crop_size": {"height": 20, "width": 31}}, [wide]),
        ("DeiTImageProcessor", {"size": [20, 41], "crop_size": [33, 28]}, [wide, tall]),
        ("DeiTImageProcessor", {"do_resize": False, "crop_size": 50}, [square, wide, tall, pixel]),
        ("BeitImageProcessor", {"size": 24, "do_center_crop": False}, [wide, tall]),
        ("BeitImageProcessor", {"size": 36, "crop_size": 32, "resample": 2}, [wide]),
        ("BeitImageProcessor", {}, [tall]),
        ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": 32,
                               "image_mean": [0.485, 0.456, 0.406],
                               "image_std": [0.229, 0.224, 0.225]}, shapes),
        ("BitImageProcessor", {}, [wide]),
        ("CLIPImageProcessor", {"size": 32, "crop_size": 32}, shapes),
        ("CLIPImageProcessor", {"size": {"height": 20, "width": 30}, "crop_size": [25, 25]}, [tall]),
        ("CLIPImageProcessor", {"size": 20, "do_center_crop": False}, [tall, wide, strip]),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 20}, "crop_size": 33}, [wide]),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 20}, "use_square_size": True,
                                "do_center_crop": False}, [wide]),
        ("CLIPImageProcessor", {}, [tall]),
        ("SiglipImageProcessor", {"size": {"height": 32, "width": 40}}, shapes),
        ("SiglipImageProcessor", {}, [wide]),
        ("DonutImageProcessor", page, page_shapes),
        ("DonutImageProcessor", {"size": [48, 64], "do_align_long_axis": True}, [wide, tall, large]),
        ("DonutImageProcessor", lying | {"do_align_long_axis": True}, [wide, tall, (90, 3, 0)]),
        ("DonutImageProcessor", page | {"do_thumbnail": False, "do_pad": False}, [wide, tall]),
        ("DonutImageProcessor", page | {"do_resize": False}, [square, tall, large]),
        ("DonutImageProcessor", page | {"resample": 3, "do_pad": False}, [wide, large]),
        ("DonutImageProcessor", {"size": 50}, [wide, tall]),
        ("NougatImageProcessor", page, page_shapes + [(90, 70, 9), (70, 200, 20)]),
        ("NougatImageProcessor", page | {"do_crop_margin": False}, [(90, 70, 9)]),
        ("NougatImageProcessor", {"size": [64, 48], "do_align_long_axis": True}, [(90, 40, 5)]),
        # A shortest edge, its own default, is a KeyError in it.
        ("ChineseCLIPImageProcessor", {"size": {"height": 32, "width": 32}, "crop_size": 32}, shapes),
        ("ChineseCLIPImageProcessor", {"size": [40, 30], "crop_size": [33, 28], "resample": 2}, [tall]),
        ("ChineseCLIPImageProcessor", {"size": [20, 30], "do_center_crop": False}, [wide]),
        ("YolosImageProcessor", {"size": {"shortest_edge": 48, "longest_edge": 90}},
         [square, wide, tall, pixel, large, (90, 48, 0), (48, 90, 0)]),
        ("YolosImageProcessor", {}, [(37, 23, 0), (20, 31, 0)]),
        ("YolosImageProcessor", {"size": 40}, [wide]),
        ("YolosImageProcessor", {"size": 40, "max_size": 64}, [wide, large]),
        ("YolosImageProcessor", {"size": {"height": 30, "width": 50}, "resample": 3}, shapes),
        ("YolosImageProcessor", {"size": {"max_height": 50, "max_width": 40}}, [square, wide, tall]),
        ("YolosImageProcessor", {"size": 40, "max_size": 64, "pad_size": {"height": 70, "width": 65}},
         [wide, tall]),
        ("YolosImageProcessor", {"do_resize": False, "do_pad": False, "pad_size": {"height": 9, "width": 9}},
         [tall]),
        ("YolosImageProcessor", {"size": 40, "max_size": 64, "pad_and_return_pixel_mask": False,
                                 "pad_size": {"height": 70, "width": 65}}, [wide]),
        ("DINOv3ViTImageProcessorFast", {"size": {"height": 32, "width": 32}}, shapes + [(1500, 1100, 0)]),
        ("DINOv3ViTImageProcessorFast", {}, [wide, large]),
        ("DINOv3ViTImageProcessorFast", {"size": {"height": 32, "width": 24}, "resample": 3}, shapes),
        ("DINOv3ViTImageProcessorFast", {"size": {"height": 60, "width": 24}}, [square]),
        ("DINOv3ViTImageProcessorFast", {"size": {"height": 24, "width": 60}, "resample": 3}, [square]),
        ("DINOv3ViTImageProcessorFast", {"size": {"shortest_edge": 36}, "do_center_crop": True,
                                         "crop_size": 32}, [square, wide, tall, pixel]),
        ("DINOv3ViTImageProcessorFast", {"size": [20, 41], "do_center_crop": True, "crop_size": [33, 28]},
         [wide, tall]),
        ("DINOv3ViTImageProcessorFast", {"size": {"shortest_edge": 48, "longest_edge": 90}},
         [square, wide, tall, (90, 48, 0)]),
        ("DINOv3ViTImageProcessorFast", {"size": {"max_height": 50, "max_width": 40}}, [wide, tall]),
        ("DINOv3ViTImageProcessorFast", {"do_resize": False}, [tall]),
        ("DINOv3ViTImageProcessorFast", {"size": 24, "do_normalize": False}, [wide]),
        ("DINOv3ViTImageProcessorFast", {"size": 24, "do_normalize": None, "do_resize": None}, [wide]),
        ("DINOv3ViTImageProcessorFast", {"size": 24, "rescale_factor": 0.0078125, "image_mean": [0.25] * 3,
                                         "image_std": [2.0] * 3}, [wide]),
    ]
    cases = []
    for name, config, pictures in jobs:
        for width, height, margin in pictures:
            image = picture(width, height, margin)
            # Told the layout: a height of 1 or 3 would be taken for the channels.
            out = classes[name](**config)(image, input_data_format="channels_last")["pixel_values"][0]
            out = np.ascontiguousarray(np.asarray(out).astype(np.float32))
            cases.append({"class": name, "config": config, "image": [width, height, margin],
                          "shape": list(out.shape), "hash": fnv(out.tobytes()),
                          "samples": samples(out, 8)})
    return cases


def images():
    """Small files of all kinds, and the pixels of each page."""
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    rgb = Image.fromarray(picture(12, 8))
    grey, indexed = rgb.convert("L"), rgb.quantize(16)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.fromarray((np.arange(96) * 255 // 95).astype(np.uint8).reshape(8, 12)))
    wide = (np.arange(96 * 3) * 227).astype(np.uint16).reshape(8, 12, 3)
    exif = Image.Exif()

    def save(name, image, **options):
        image.save(folder / name, **options)

    for orientation in range(1, 9):
        exif[0x112] = orientation
        save(f"exif{orientation}.png", rgb, exif=exif)
    exif[0x112] = 6
    save("exif6.jpg", rgb, exif=exif, quality=95, subsampling=0)
    save("exif6.webp", rgb, exif=exif, lossless=True)
    save("exif6.tif", rgb, exif=exif)
    xmp = PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="8"/>')
    save("xmp8.png", rgb, pnginfo=xmp)
    save("bilevel.png", grey.convert("1"))
    save("grey16.png", Image.fromarray(wide[..., 0].copy()))
    save("greyalpha.png", rgba.convert("LA"))
    save("alpha.png", rgba)
    save("indexed.png", indexed)
    save("indexed_transparent.png", indexed, transparency=3)
    save("rgb_transparent.png", rgb, transparency=rgb.getpixel((2, 2)))
    save("colour.jpg", rgb.resize((48, 32)), quality=90)
    save("progressive.jpg", rgb.resize((48, 32)), quality=90, progressive=True)
    save("grey.jpg", grey, quality=95)
    save("cmyk.jpg", rgb.convert("CMYK"), quality=95)
    save("lossless_alpha.webp", rgba, lossless=True)
    save("lossy.webp", rgb, quality=80)
    save("frames.gif", indexed, save_all=True, append_images=[rgb.rotate(180).quantize(16)])
    save("colour.bmp", rgb)
    save("indexed.bmp", indexed)
    save("colour.ppm", rgb)
    save("grey.pgm", grey)
    save("bilevel.pbm", grey.convert("1"))
    save("lzw.tif", rgb, compression="tiff_lzw")
    save("fax.tif", grey.convert("1"), compression="group4")
    save("pages.tif", indexed, save_all=True, append_images=[rgba.resize((7, 5)), rgb.rotate(180)])
    cases = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            continue
        with Image.open(path) as image:
            orientation = image.getexif().get(0x112, 1)
            for page in range(getattr(image, "n_frames", 1)):
                image.seek(page)
                seen = ImageOps.exif_transpose(image)
                if seen.mode == "I;16":
                    seen = Image.fromarray((np.array(seen) >> 8).astype(np.uint8))
                seen = seen.convert("RGBA")
                white = Image.new("RGB", seen.size, "white")
                white.paste(seen, mask=seen.getchannel("A"))
                cases.append({"file": path.name, "page": page, "size": list(white.size),
                              "orientation": orientation, "lossy": path.suffix == ".jpg",
                              "hash": fnv(white.tobytes()),
                              "pixels": list(white.tobytes()) if path.suffix == ".jpg" else []})
    return cases


for stem, cases in (("images/decode", images()), ("resample", resample()), ("processor", processor())):
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / f"{stem}.json").write_text(f"[\n{lines}\n]\n")
