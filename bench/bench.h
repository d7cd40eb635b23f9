/*
 * The benches. Each has its own arguments and help; the command line and `make bench` come through
 * bench_main.
 */
#pragma once

/* Runs argv[0], the name of a bench, with the arguments behind it; returns the exit status. */
int bench_main(int argc, char **argv);

/* One each; argv[0] is the bench's name. */
int bench_all_main(int argc, char **argv);
int bench_speed_main(int argc, char **argv);
int bench_latency_main(int argc, char **argv);
int bench_crossing_main(int argc, char **argv);
int bench_read_main(int argc, char **argv);
int bench_connections_main(int argc, char **argv);
int bench_limit_main(int argc, char **argv);
int bench_lane_main(int argc, char **argv);
int bench_table_main(int argc, char **argv);
int bench_log_main(int argc, char **argv);
int bench_turn_main(int argc, char **argv);
int bench_deep_main(int argc, char **argv);
int bench_memory_main(int argc, char **argv);
int bench_stream_main(int argc, char **argv);
