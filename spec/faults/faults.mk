# What the specs in this folder start, or load with LD_PRELOAD.
#
#   flood         hellos from any number of addresses
#   intruder.so   a third party whose datagrams come between bind and connect
#   faults.so     a host that fails when it is told to

FAULTS_OUT = $(BUILD)/faults
HOSTS += $(addprefix $(FAULTS_OUT)/,flood intruder.so faults.so)

$(FAULTS_OUT)/flood: spec/faults/flood.c
	@mkdir -p $(@D)
	$(HOST_COMPILE) -o $@ $<

$(FAULTS_OUT)/%.so: spec/faults/%.c
	@mkdir -p $(@D)
	$(HOST_LIBRARY) $(FAULTS_LIBS)

$(FAULTS_OUT)/faults.so: FAULTS_LIBS = -Wl,--no-as-needed -lssl -lcrypto -ldl
