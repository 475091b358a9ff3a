"""Get, make, change, index and check RealEstate10K-style chunks of posed videos."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import command_parser, setup_logging
from common.errors import UserError, command
from dataloader.re10k.arguments import NAMES, add_commands

if TYPE_CHECKING:
    from dataloader.re10k.pack import Packed, Shard
    from dataloader.re10k.roots import Root
    from dataloader.re10k.scenes import Re10kScenes

EXAMPLES = """
python scripts/re10k.py download RealEstate10K/test videos/
python scripts/re10k.py extract RealEstate10K/test videos/ frames/test
python scripts/re10k.py to-chunks RealEstate10K/test re10k/ --frames frames/test --split test
python scripts/re10k.py to-chunks my_scenes/ my_chunks/ --split train
python scripts/re10k.py compress re10k/ re10k_bl2/
python scripts/re10k.py rescale re10k/ re10k_256/ --height 256 --width 256 --quality 95
python scripts/re10k.py pre-encode re10k_256/ re10k_latents/ --vae stabilityai/sdxl-vae --subfolder ''
python scripts/re10k.py index v1 re10k/ evaluation_index.json
python scripts/re10k.py index video evaluation_index.json evaluation_index_video.json
python scripts/re10k.py check re10k/ --split test --sheet sheet.png --eval_index evaluation_index.json
python scripts/submit.py --shards 16 --cpus 2 -- python scripts/re10k.py rescale re10k/ re10k_256/
"""


def parse() -> argparse.Namespace:
    parser = command_parser(__doc__ or "", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(NAMES) + "}")
    shared = {"epilog": parser.epilog, "formatter_class": parser.formatter_class, "allow_abbrev": False}
    add_commands(commands, shared)
    return parser.parse_args()


def shard_of(args: argparse.Namespace) -> Shard:
    from dataloader.re10k.pack import Shard

    return Shard.parse(args.shard)


def check_quality(args: argparse.Namespace) -> None:
    if args.quality > 100:
        raise UserError(f"--quality {args.quality}: JPEG quality goes from 1 to 100")


def root_of(place: str) -> Root:
    from dataloader.re10k.roots import Root, default_cache

    return Root(place, default_cache())


def splits_of(root: Root, wanted: str | None) -> list[str]:
    """The splits to work on: the one asked for, or those that are there."""
    found = [split for split in ("train", "test") if wanted in (None, split) and root.has_split(split)]
    if not found:
        raise UserError(f"{root.place} has no {wanted or 'train'}/index.json: name a folder of chunks")
    return found


def report(packed: Packed, out: Path | str) -> None:
    """Say what a run did."""
    for reason in packed.left_out:
        print(f"left out: {reason}")
    print(
        f"{out}: {packed.chunks} chunks with {packed.scenes} scenes made, {packed.present} scenes there "
        f"already, {len(packed.left_out)} left out"
    )


def download(args: argparse.Namespace) -> None:
    from dataloader.re10k.camera_files import read_clip, read_clips
    from dataloader.re10k.videos import download

    clips = [read_clip(path) for path in read_clips(args.cameras)]
    shard = shard_of(args)
    videos = dict(shard.of(sorted({clip.video: clip.url for clip in clips}.items())))
    part = f"-{shard.number}-of-{shard.count}" if shard.count > 1 else ""
    record = args.videos / f"vanished{part}.txt"
    done = download(videos, args.videos, record, args.height, args.retry)
    for reason in done.failed:
        print(f"not fetched: {reason}")
    gone = len(record.read_text(encoding="utf-8").splitlines()) if record.is_file() else 0
    print(f"{args.videos}: {done.made} videos fetched, {done.present} there already, {gone} gone ({record})")


def extract(args: argparse.Namespace) -> None:
    from dataloader.re10k.camera_files import read_clips
    from dataloader.re10k.frames import extract_clips

    check_quality(args)
    files = shard_of(args).of(read_clips(args.cameras))
    counts = extract_clips(files, args.videos, args.frames, (args.height, args.width), args.quality)
    for reason in counts.failed:
        print(f"left out: {reason}")
    print(
        f"{args.frames}: {counts.made} clips extracted, {counts.present} there already, "
        f"{len(counts.failed)} left out, {counts.absent} without a video"
    )


def to_chunks(args: argparse.Namespace) -> None:
    from dataloader.re10k.pack import SplitWriter, pack
    from dataloader.re10k.sources import clip_examples, folder_examples

    shard = shard_of(args)
    examples = clip_examples(args.source, args.frames) if args.frames else folder_examples(args.source)
    if args.h5:
        from dataloader.re10k.stack_h5 import stack_h5

        if shard.count > 1:
            raise UserError("--h5 writes one file: leave out --shard")
        report(stack_h5(examples, args.out, args.h5, args.min_frames), args.out)
        return
    writer = SplitWriter(args.out, args.split)
    report(pack(examples, writer, shard, chunk_bytes=args.chunk_mb * 1_000_000), args.out / args.split)


def compress(args: argparse.Namespace) -> None:
    from dataloader.re10k.convert import compress_root

    root = root_of(args.root)
    for split in splits_of(root, args.split):
        report(compress_root(root, args.out, split, shard_of(args)), args.out / split)


def rescale(args: argparse.Namespace) -> None:
    from dataloader.re10k.convert import convert_root, rescale, rescaled_meta
    from dataloader.re10k.scenes import expected_size

    check_quality(args)
    root = root_of(args.root)
    wanted = None if args.min_size else (args.height, args.width)
    meta = rescaled_meta(root, wanted, args.min_size or 1)
    native, new = (
        expected_size(root.meta(), args.root),
        (meta["expected_shape"][1], meta["expected_shape"][2]),
    )
    for split in splits_of(root, args.split):
        done = convert_root(
            root,
            args.out,
            split,
            lambda scene, source: rescale(scene, source, new, native, args.quality),
            meta,
            shard_of(args),
        )
        report(done, args.out / split)


def pre_encode(args: argparse.Namespace) -> None:
    import torch

    from dataloader.re10k.convert import Encoder, add_latents, convert_root
    from dataloader.re10k.scenes import expected_size

    root = root_of(args.root)
    splits, native = splits_of(root, args.split), expected_size(root.meta(), args.root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = Encoder(args.vae, args.subfolder, device, not args.legacy_range, args.batch)
    for split in splits:
        done = convert_root(
            root,
            args.out,
            split,
            lambda scene, source: add_latents(scene, source, encoder, native),
            encoder.meta(root),
            shard_of(args),
        )
        report(done, args.out / split)


def index(args: argparse.Namespace) -> None:
    from dataloader.re10k.index import read_index, subset, write_index
    from dataloader.re10k.index_rules import nested, video_entry

    if args.rule == "video":
        entries = {key: video_entry(entry) for key, entry in read_index(Path(args.source)).items()}
        write_index(entries, args.out)
    elif args.rule == "subset":
        if not args.root:
            raise UserError("index subset needs --root, the folder whose scenes are kept")
        scenes = open_chunks(args.root, args.split)
        entries = subset(read_index(Path(args.source)), {scenes.key(i) for i in range(len(scenes))})
        write_index(entries, args.out)
    else:
        scenes, entries = built_index(args)
        if args.rule == "v2":
            for count in range(2, args.num_context_views + 1):
                path = args.out / f"evaluation_index_num_src_{count}.json"
                write_index(nested(entries, count), path)
        else:
            write_index(entries, args.out)
    chosen = sum(entry is not None for entry in entries.values())
    print(f"{args.out}: {chosen} of {len(entries)} scenes have views")


def built_index(args: argparse.Namespace) -> Any:
    """The scenes, and an index of them by the rule v1, v2 or dtu."""
    from dataloader.re10k.build_index import build_index, choose_by, write_previews
    from dataloader.re10k.index_rules import IndexRule

    if args.rule != "v2" and args.out.suffix != ".json":
        raise UserError(f"{args.out}: name a file that ends in .json")
    if args.rule == "v1" and args.num_context_views != 2:
        raise UserError("index v1 gives two views: use v2 for --num_context_views above 2")
    rule = IndexRule(
        args.num_context_views,
        args.num_target_views,
        args.min_ctx_overlap,
        args.max_ctx_overlap,
        args.min_ctx_distance,
        args.max_ctx_distance,
        args.min_tgt_to_ctx_distance,
    )
    scenes = open_chunks(args.source, args.split)
    entries, unreadable = build_index(scenes, choose_by(args.rule, rule), args.seed)
    for reason in unreadable:
        print(f"left out: {reason}")
    if args.previews:
        write_previews(entries, scenes, args.previews)
    return scenes, entries


def open_chunks(places: str, split: str) -> Re10kScenes:
    from dataloader.re10k.scenes import Re10kScenes

    return Re10kScenes([place.strip() for place in places.split(",") if place.strip()], split)


def check(args: argparse.Namespace) -> None:
    from dataloader.re10k.check import check_index, check_scenes, write_sheet
    from dataloader.re10k.pack import reindex

    wrong = 0
    first = root_of(args.root.split(",")[0])
    if args.reindex:
        for split in [args.split] if args.split else ["train", "test"]:
            if first.file(split).is_dir():
                print(f"{first.place}/{split}/index.json: {len(reindex(first.file(), split))} scenes")
    for split in splits_of(first, args.split):
        scenes = open_chunks(args.root, split)
        found = check_scenes(scenes, args.every)
        for reason in found.bad:
            print(f"cannot be used: {reason}")
        print("\n".join(f"{name:>14}  {value}" for name, value in found.table()))
        wrong += len(found.bad)
        if args.sheet and found.pictures:
            path = args.sheet if args.split else args.sheet.with_stem(f"{args.sheet.stem}_{split}")
            write_sheet(found.pictures, path)
            print(f"{'contact sheet':>14}  {path}")
        if args.eval_index and split == "test":
            count, mistakes = check_index(scenes, args.eval_index)
            print("\n".join([*mistakes, f"{args.eval_index}: {count} tasks, {len(mistakes)} cannot be used"]))
            wrong += len(mistakes)
    if wrong:
        raise UserError(f"{args.root}: {wrong} things cannot be used, see above")


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "download": download,
    "extract": extract,
    "to-chunks": to_chunks,
    "compress": compress,
    "rescale": rescale,
    "pre-encode": pre_encode,
    "index": index,
    "check": check,
}


@command
def main() -> None:
    args = parse()
    setup_logging()
    RUN[args.command](args)


if __name__ == "__main__":
    main()
