ifeq ($(MACHINE),x86_64)
$(BUILD)/tests/unit/test_x4.o: CFLAGS_ALL += -mavx2
endif
