/* bench.h - one function a sub-command; each prints one JSON object with the keys that scripts
 * rely on (README.md of tests) and answers the exit code.
 */
#pragma once

int bench_bulk(int argc, char **argv);
int bench_core(int argc, char **argv);
int bench_dispatch(int argc, char **argv);
int bench_scale(int argc, char **argv);
int bench_recover(int argc, char **argv);
int bench_store(int argc, char **argv);
int bench_latency(int argc, char **argv);
int bench_spawn(int argc, char **argv);
