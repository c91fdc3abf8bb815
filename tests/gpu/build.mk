# Builds the measurements of tests/gpu for devices (with the tests of tests/cuda) or for the emulator.
# usage: make -f tests/gpu/build.mk gpu|gpu-small [ARCHS=90a]
include Makefile

GPU_BENCHES := $(patsubst %.cu,%,$(wildcard tests/gpu/*.cu))

.PHONY: gpu gpu-small
gpu: $(BIN) gpu-tests $(GPU_BENCHES:%=$(BUILD)/cuda/%)
gpu-small: $(EMU)/quern $(GPU_BENCHES:%=$(EMU)/%)

$(BUILD)/cuda/tests/gpu/%: $(BUILD)/cuda/tests/gpu/%.cu.o $(CUDA_OBJ) $(LIB)
	$(Q)$(CXX) $(LDFLAGS) $^ $(LIBS) $(CUDA_LIBS) -o $@
$(EMU)/tests/gpu/%: $(EMU)/tests/gpu/%.cu.o $(EMU_OBJ) $(LIB)
	$(Q)$(CXX) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@
.SECONDARY: $(GPU_BENCHES:%=$(BUILD)/cuda/%.cu.o) $(GPU_BENCHES:%=$(EMU)/%.cu.o)
-include $(wildcard $(BUILD)/cuda/tests/gpu/*.d $(EMU)/tests/gpu/*.d)
