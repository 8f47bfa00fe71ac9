module larder.test/load

go 1.24
