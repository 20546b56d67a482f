"""Make private held-out shards from any text, for `golf.sh score --holdout DIR`.

An entry may know the public text by heart; it cannot know a text that only you have. TEXT is a .jsonl
file, one {"text": ...} a document, or any other text file: its paragraphs, blocks between blank
lines, are gathered to documents. The documents are ordered by their hashes, so that every part of
the shard holds some of each file. Keep DIR to yourself, outside the repository.
"""

from golf.core.packages import missing
from golf.core.paths import path_argument


def add_arguments(parser) -> None:
    path = dict(type=path_argument)
    parser.add_argument("texts", nargs="+", **path, metavar="TEXT", help="a .jsonl or plain text file")
    parser.add_argument("--out", required=True, **path, metavar="DIR", help="a folder to make, outside")
    parser.add_argument("--track", default="track_sample_5min", metavar="NAME",
                        help="whose tokenizer encodes it (default: track_sample_5min)")  # fmt: skip
    parser.add_argument("--data", **path, metavar="DIR", help="the shards' folder, with its tokenizer")


def main(args) -> int:
    try:  # here: other commands do without these packages
        from golf.score.holdout_shards import make
    except ImportError as error:
        raise missing(error.name or str(error)) from None
    print("\n".join(make(args.texts, args.out, args.track, args.data)))
    return 0
