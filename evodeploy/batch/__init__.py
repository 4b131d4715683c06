"""Predictions for any number of images, on all cores of a machine or of a Ray cluster, resumable after a kill.

    inputs ──▶ decode ──▶ predict ──▶ output
    listed,    parallel   a pool of   Parquet, one
    cut into   tasks      actors, an  part a shard
    shards                engine each

A shard is finished when its part exists, and parts appear atomically: a killed run loses only the shards in flight.
"""
