-- The context whose sessions the target looks at.
package.path = './?.lua'
return require('spec.fuzz.contexts').pair('certificate').client
