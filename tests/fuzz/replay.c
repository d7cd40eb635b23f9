/*
 * A main() for fuzz targets that gcc builds: gives each file of a corpus to the target once, so that
 * `make test` replays what fuzzing has found without needing clang.
 *
 *   usage: fuzz_frame [file or folder ...]
 *
 * The empty input always comes first. Each input stands in a block of exactly its size, so that a
 * sanitizer or valgrind sees a read past its end. The name is printed before the input is run: when
 * the target crashes, the last line says on what.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
/* A target may have one; libFuzzer calls it once before the first input. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static unsigned inputs_count;

static void fail(const char *what, const char *path)
{
    printf("not ok replay: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static void run_input(const char *name, const uint8_t *data, size_t bytes)
{
    printf("# %s\n", name);
    fflush(stdout);
    (void)LLVMFuzzerTestOneInput(data, bytes);
    inputs_count++;
}

static void run_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot open", path);
    uint8_t *data = malloc(bytes);
    if (!data && bytes > 0) fail("no memory for", path);
    if (fread(data, 1, bytes, file) != bytes) fail("cannot read", path);
    fclose(file);
    run_input(path, data, bytes);
    free(data);
}

/* Runs a file, or the files of a folder in the order of their names; folders are not nested. */
static void run_path(const char *path, int depth)
{
    struct stat status;
    if (stat(path, &status) < 0) fail("cannot find", path);
    if (!S_ISDIR(status.st_mode)) {
        run_file(path, (size_t)status.st_size);
        return;
    }
    if (depth > 0) return;

    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) fail("cannot list", path);
    for (int i = 0; i < count; i++) {
        char child[4096];
        int length = snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        if (length >= (int)sizeof child) fail("name too long in", path);
        if (entries[i]->d_name[0] != '.') run_path(child, depth + 1);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);

    uint8_t *nothing = malloc(1);
    if (!nothing) fail("no memory for", "the empty input");
    run_input("the empty input", nothing + 1, 0); /* one past the block: not a byte may be read */
    free(nothing);

    for (int i = 1; i < argc; i++) run_path(argv[i], 0);
    printf("ok %u inputs\n", inputs_count);
    return 0;
}
