std = 'luajit'
max_line_length = 140
exclude_files = { 'build' }
files.spec.std = '+busted'
files['spec/fuzz'].read_globals = { 'net' } -- of the fuzz targets
files['spec/support/fixtures'] = { globals = { 'server', 'conn' }, ignore = { '211', '241', '331' } } -- the block in their middle
files.doc = { read_globals = { 'pandoc' }, globals = { 'Header', 'Link', 'Para' } } -- filters of pandoc's
