$(BUILD)/tests/unit/test_start_faults: TEST_LDFLAGS := \
    -Wl,--wrap=posix_memalign,--wrap=mmap,--wrap=munmap,--wrap=free,--wrap=pthread_create
