"""Get published weights, splits, example photos and pretrained networks; interrupted downloads continue."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.cli import add_boolean, command_parser, progress, setup_logging
from common.errors import UserError, command
from dataloader.downloads import Fetched, fetch, verify
from dataloader.remote import list_files

EXAMPLES = """
python scripts/download.py weights warp_plus_pose
python scripts/download.py weights zeronvs_original --from ~/Downloads/zeronvs.ckpt
python scripts/download.py weights lvsm/official
python scripts/download.py weights scene_lifting/default
python scripts/download.py splits
python scripts/download.py metadata
python scripts/download.py examples
python scripts/download.py hub LiheYoung/depth-anything-large-hf
python scripts/download.py url s3://bucket/scenes/000000.torch data/re10k/test/000000.torch
python scripts/download.py weights warp_plus_pose --verify
"""
_BUCKET = "s3://megascenes"
_CHECKPOINTS = f"{_BUCKET}/nvs_checkpoints"
_WEIGHTS = {
    "warp_plus_pose": "iter_112000/model.safetensors",
    "zeronvs_finetune": "iter_90000/model.safetensors",
    "zeronvs_original": "iter_0/zeronvs.ckpt",
    "lvsm/official": "iter_100000/scene_decoder_only_256.pt",
    "lvsm/official_encoder_decoder": "iter_100000/scene_encoder_decoder_256.pt",
    "lvsm/unofficial": "iter_100000/lvsm_base.ckpt",
    "scene_lifting/default": "iter_0/invisible-stitch.pt",
    "scene_lifting/original": "iter_0/invisible-stitch.pt",
    "lvsm/unofficial_vae": "iter_100000/lvsm_vae_4x4.ckpt",
}
_HUB = {
    "lvsm/official": "coast01/LVSM",
    "lvsm/official_encoder_decoder": "coast01/LVSM",
    "scene_lifting/default": "paulengstler/invisible-stitch",
    "scene_lifting/original": "paulengstler/invisible-stitch",
}
_BY_HAND = {  # name -> who publishes it where no program can fetch it
    "zeronvs_original": "ZeroNVS publishes its checkpoint on Google Drive, linked from the README of "
    "github.com/kylesargent/ZeroNVS",
    "lvsm/unofficial": "the unofficial LVSM code links its checkpoints from the README of "
    "github.com/KaiHelli/lvsm",
    "lvsm/unofficial_vae": "the unofficial LVSM code links its checkpoints from the README of "
    "github.com/KaiHelli/lvsm",
}
_PHOTOS = (
    "https://raw.githubusercontent.com/MegaScenes/nvs/0de3b004f643e0584112e7282a14ec304358e93f/data/examples"
)
_PHOTO_NAMES = ("audley_end_house", "blenheim_palace", "caernarfon_castle", "hatfield_house")
_HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")  # configurations, vocabularies, weights


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{weights,splits,metadata,examples,hub,url}"
    )
    shared: dict[str, Any] = {
        "epilog": parser.epilog,
        "formatter_class": parser.formatter_class,
        "allow_abbrev": False,
    }
    add_megascenes(commands, shared)
    add_hub(commands, shared)
    sub = commands.add_parser("url", help="any file", description="Any file, checked as it can be.", **shared)
    sub.add_argument("source", metavar="SRC", help="s3:// (public), http(s)://, file:// or a path")
    sub.add_argument("out", type=Path, metavar="DST", help="file to write, or an existing folder")
    add_transfer(sub)
    return parser.parse_args()


def add_megascenes(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "weights",
        help="published checkpoints of warp_diffusion, lvsm and scene_lifting",
        description="A published checkpoint to where train.py, test.py and video_script.py look for it: "
        "configs/NAME/iter_N.",
        **shared,
    )
    sub.add_argument("name", choices=sorted(_WEIGHTS), metavar="NAME", help=", ".join(sorted(_WEIGHTS)))
    sub.add_argument(
        "--from", dest="source", metavar="SRC", help="take this file or address, not the published one"
    )
    sub.add_argument("--out", type=Path, default=Path("configs"), help="experiments (default: configs)")
    add_transfer(sub)
    for name, place, text in (
        ("splits", "data/splits", "train and test pairs of MegaScenes"),
        ("metadata", "data/megascenes/metadata", "categories.json of MegaScenes: scene name -> number"),
        ("examples", "data/examples", "the four example photos of MegaScenes NVS"),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **shared)
        sub.add_argument("--out", type=Path, default=Path(place), help=f"folder (default: {place})")
        add_transfer(sub)


def add_hub(commands: Any, shared: dict[str, Any]) -> None:
    sub = commands.add_parser(
        "hub",
        help="pretrained networks of other projects, by hub id",
        description="Configuration, vocabulary and weights (safetensors) of models on the Hugging Face hub, "
        "to its cache on this machine ($HF_HOME), where every command finds them without a network.",
        **shared,
    )
    sub.add_argument("ids", nargs="+", metavar="ID", help="OWNER/NAME")
    sub.add_argument("--revision", help="branch, tag or commit (default: the main branch)")
    sub.add_argument(
        "--include",
        nargs="+",
        default=_HUB_PATTERNS,
        metavar="PATTERN",
        help=f"files to get (default: {' '.join(_HUB_PATTERNS)})",
    )


def add_transfer(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--endpoint_url", metavar="URL", help="S3 server or mirror (default: $AWS_ENDPOINT_URL, or Amazon's)"
    )
    add_boolean(sub, "--overwrite", help="fetch files again that are there")
    add_boolean(sub, "--verify", help="fetch nothing: compare the files with their .sha256")


def get(args: argparse.Namespace, source: str, path: Path) -> None:
    """Fetch a file, or check it, and say so."""
    if args.verify:
        verify(path)
        print(f"{path}: as fetched (SHA-256)")
        return
    with _Bar(path.name) as report:
        done = fetch(source, path, args.endpoint_url, report, args.overwrite)
    print(f"{path}: {describe_result(done)}")


def describe_result(done: Fetched) -> str:
    size = f"{done.size / 1e6:.1f} MB"
    return f"{size}, checked: {done.check}" if done.new else f"{size}, {done.check}"


class _Bar:
    """A progress bar in bytes, made at the first report."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int | None], None]:
        return self.report

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def report(self, done: int, total: int | None) -> None:
        if self.bar is None:
            self.bar = progress([], self.name, total, unit="B", unit_scale=True, initial=done)
        self.bar.update(done - self.bar.n)


def weights(args: argparse.Namespace) -> None:
    path = args.out / args.name / _WEIGHTS[args.name]
    source = args.source or f"{_CHECKPOINTS}/{args.name}/{_WEIGHTS[args.name]}"
    if args.name in _BY_HAND and not (args.source or args.verify):
        raise UserError(
            f"{_BY_HAND[args.name]}: get {path.name} with a browser and put it at {path}, or pass --from FILE"
        )
    if args.name in _HUB and not (args.source or args.verify):
        from dataloader.hub import snapshot

        source = str(snapshot(_HUB[args.name], patterns=(path.name,)) / path.name)
    get(args, source, path)


def splits(args: argparse.Namespace) -> None:
    folder = f"{_CHECKPOINTS}/splits/"
    if args.verify:
        found = sorted(path.with_suffix("") for path in args.out.glob("*.sha256"))
        if not found:
            raise UserError(f"{args.out} holds no fetched file: run without --verify first")
        sources = dict.fromkeys(found, "")
    else:
        listed = list_files(folder, args.endpoint_url)
        sources = {args.out / source.removeprefix(folder): source for source in listed}
    for path, source in sources.items():
        get(args, source, path)


def metadata(args: argparse.Namespace) -> None:
    get(args, f"{_BUCKET}/metadata/categories.json", args.out / "categories.json")


def examples(args: argparse.Namespace) -> None:
    for name in _PHOTO_NAMES:
        get(args, f"{_PHOTOS}/{name}.jpg", args.out / f"{name}.jpg")


def hub(args: argparse.Namespace) -> None:
    from dataloader.hub import snapshot

    for name in args.ids:
        print(f"{name}: {snapshot(name, args.revision, tuple(args.include))}")


def url(args: argparse.Namespace) -> None:
    name = Path(urlsplit(args.source).path).name
    get(args, args.source, args.out / name if args.out.is_dir() else args.out)


@command
def main() -> None:
    args = parse()
    setup_logging()
    {
        "weights": weights,
        "splits": splits,
        "metadata": metadata,
        "examples": examples,
        "hub": hub,
        "url": url,
    }[args.command](args)


if __name__ == "__main__":
    main()
