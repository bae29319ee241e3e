#!/bin/sh
# From an archive of CIFAR-100's layout to a tuned network and its report, all by command line; test_cifar100.py runs it.
#
#   tests/integration/cifar100.sh ARCHIVE STORE FOLDER [OPTION OF SUBMIT]...
#
# STORE is a directory, or s3://bucket/prefix with AWS_ENDPOINT_URL_S3 and the standard AWS variables set.
# What the run leaves is pulled into FOLDER.
set -eu

archive=$1
folder=$3
run=tune-cifar100-$(date -u +%y%m%d-%H%M%S)-check
export CIFARRAY_STORE="$2"
shift 3

cifarray data prepare cifar100 --archive "$archive"
cifarray submit tune-cifar100 --name "$run" --set sweep.trials=4 --set train.epochs=2 "$@"
cifarray pull "$run" "$folder"
cifarray report "$run"
