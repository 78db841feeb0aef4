# What the specs in this folder load with LD_PRELOAD.
#
#   intruder.so   a third party whose datagrams come between bind and connect

FAULTS_OUT = $(BUILD)/faults
HOSTS += $(FAULTS_OUT)/intruder.so

$(FAULTS_OUT)/intruder.so: spec/faults/intruder.c
	@mkdir -p $(@D)
	$(HOST_LIBRARY)
