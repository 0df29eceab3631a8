// Checks an OpenAPI document against the specification's own schema. Usage: node openapi.mjs FILE
import { readFileSync } from "node:fs";
import { Validator } from "@seriousme/openapi-schema-validator";

const validator = new Validator();
const { valid, errors } = await validator.validate(JSON.parse(readFileSync(process.argv[2], "utf8")));
if (!valid) {
	console.error(JSON.stringify(errors, null, 2));
	process.exit(1);
}
console.log(`OpenAPI ${validator.version}`);
