$(BUILD)/tests/unit/test_steady: TEST_LDFLAGS := \
    -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=posix_memalign,--wrap=aligned_alloc \
    -Wl,--wrap=mmap,--wrap=munmap,--wrap=madvise
