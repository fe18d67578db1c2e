"""Reads the pictures of a list on Spark, a `vedm` a partition, into a Parquet table.

    spark-submit examples/spark/read.py LIST OUT [--partitions N] [-- OPTIONS OF vedm ocr...]

LIST has a name a line: paths that every executor sees, or URLs. OUT is a new folder. Options after `--` go
to `vedm ocr`, such as `--model trocr-base-printed --threads 2`; each executor needs `vedm` in its PATH and
the model in its cache, or VEDM_MODEL in the environment of the driver.

Names go in and records come out as lines of JSON, through `rdd.pipe`. A partition whose `vedm` or executor
dies is read again by another one, and only what a whole partition gave is committed: no record is lost, and
none is there twice. A picture that can't be read is a record with an `error`, and no reason to stop.
"""

import argparse
import json
import os
import shlex

from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

# Fields of a record; `--details` and `--lines` have more.
RECORD = StructType([
    StructField("image", StringType(), False),
    StructField("page", LongType()),
    StructField("text", StringType()),
    StructField("confidence", DoubleType()),
    StructField("finish_reason", StringType()),
    StructField("new_tokens", LongType()),
    StructField("ms", DoubleType()),
    StructField("error", StringType()),
])

# What a process needs of the environment; all of VEDM_, HF_ and OMP_ goes with it.
NEEDED = ("PATH", "HOME", "LD_LIBRARY_PATH", "LIBTORCH", "TMPDIR")


def command(options):
    """`vedm ocr`, for which exit status 2 (some pictures failed) is a success."""
    words = shlex.join(["vedm", "ocr", "--files-from", "-", "--format", "jsonl", "--quiet", *options])
    return shlex.join(["sh", "-c", f"{words}; status=$?; [ $status -eq 2 ] || exit $status"])


def environment():
    taken = ("VEDM_", "HF_", "OMP_")
    return {name: value for name, value in os.environ.items()
            if name in NEEDED or name.startswith(taken)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list")
    parser.add_argument("out")
    parser.add_argument("--partitions", type=int, default=0, help="some thousand pictures each")
    parser.add_argument("options", nargs="*", help="after --: options of vedm ocr")
    args = parser.parse_args()

    spark = SparkSession.builder.appName("vedm").getOrCreate()
    context = spark.sparkContext
    partitions = args.partitions or 2 * context.defaultParallelism
    names = context.textFile(args.list).filter(bool).repartition(partitions)
    lines = names.map(lambda name: json.dumps({"image": name}))
    records = lines.pipe(command(args.options), env=environment(), checkCode=True)
    spark.read.json(records, schema=RECORD).write.parquet(args.out)
    spark.stop()


if __name__ == "__main__":
    main()
