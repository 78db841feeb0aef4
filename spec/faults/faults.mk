# What the specs in this folder start, or load with LD_PRELOAD.
#
#   flood         hellos from any number of addresses
#   intruder.so   a third party whose datagrams come between bind and connect

FAULTS_OUT = $(BUILD)/faults
HOSTS += $(addprefix $(FAULTS_OUT)/,flood intruder.so)

$(FAULTS_OUT)/flood: spec/faults/flood.c
	@mkdir -p $(@D)
	$(HOST_COMPILE) -o $@ $<

$(FAULTS_OUT)/intruder.so: spec/faults/intruder.c
	@mkdir -p $(@D)
	$(HOST_LIBRARY)
